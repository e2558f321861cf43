"""The job file: its schema, how its layers are merged, and mistakes in it. No Ray, no torch."""
