"""Arrow types and values, and sets of hashes."""
