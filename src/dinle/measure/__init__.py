"""Judges bundles: quality and speed."""
