"""Checks of an output: its files against its records, and items rendered again."""
