"""What holds for every test."""

from __future__ import annotations

from hypothesis import settings

# A deadline for one example says nothing on a busy machine.
settings.register_profile("dinle", deadline=None)
settings.load_profile("dinle")
