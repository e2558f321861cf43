"""Sana and its relatives: text to image, image to image, and a ControlNet."""
