"""The recogniser behind HTTP."""
