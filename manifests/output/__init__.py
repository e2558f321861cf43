"""The output folder: its layout, its lease, its records."""
