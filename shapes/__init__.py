"""The world of coloured shapes: captions, drawings, how a picture is scored, how its checkpoints are trained.

Nothing that renders prompts imports this package: `checkpoints/*-shapes` are ordinary diffusers folders.
"""
