"""Quantization schemes: their table, and a module for each."""
