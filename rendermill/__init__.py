"""Turns a table of prompts into images and videos: diffusers pipelines on Ray, every item exactly once.

The four folders of the source tree are subpackages of this one, so that a user may have packages of the same names.
"""
