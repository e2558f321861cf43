"""Checks of rendermill on one GPU, in the shapes of large models."""
