"""Sana and its relatives: text to image, image to image, a ControlNet, and videos."""
