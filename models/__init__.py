"""diffusers pipelines behind one small interface. No Ray, no storage."""
