"""Media files: how they are encoded, what they say of themselves, and how they are stored."""
