"""The classic service entry point: ``uvicorn app.main:app``. Settings come from the environment (``ASR_*``)."""

from __future__ import annotations

from dinle.serve.app import create_app

app = create_app()
