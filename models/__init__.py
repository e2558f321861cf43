"""Pipelines of diffusers behind one small interface. No Ray, no storage."""
