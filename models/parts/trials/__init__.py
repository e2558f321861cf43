"""Trials of batch sizes."""
