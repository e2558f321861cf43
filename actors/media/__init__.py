"""Media files: their formats, encoders and provenance, and how they are stored."""
