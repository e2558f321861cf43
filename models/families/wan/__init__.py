"""Wan 2.1 and 2.2: text, image, first and last image, and video to video, with or without VACE's controls."""
