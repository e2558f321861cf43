"""Images and videos that requests are conditioned on: fetched, checked, decoded and fitted, ahead of the models."""
