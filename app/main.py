"""The classic service entry point: ``uvicorn app.main:app``. Settings come from the environment (``ASR_*``)."""

from __future__ import annotations

from dinle.serve.app import create_app
from dinle.serve.logs import set_up_logging
from dinle.serve.settings import read_settings

settings = read_settings()
set_up_logging(settings.log_format)
app = create_app(settings=settings)
