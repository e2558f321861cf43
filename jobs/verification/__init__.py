"""Checks of an output: files against records, and items rendered again."""
