"""Renders one image in plain Python, without Ray and without a job file.

Run it with: python -m examples.render_one checkpoints/sana-shapes "a red circle" circle.png
"""

import sys
from pathlib import Path

from rendermill.actors.checkpoints.checkpoint import describe
from rendermill.actors.engine.engine import Engine
from rendermill.actors.engine.loading import request_for
from rendermill.actors.media.encoders import encode
from rendermill.actors.media.encoding import Encoding

source, prompt, picture = sys.argv[1:]
checkpoint = describe(source, revision=None)  # a folder, a URL, or a repository of the Hugging Face Hub
engine = Engine.load(checkpoint)
request = request_for(checkpoint, prompt=prompt, seed=7)  # takes what a manifest row takes
outcome = engine.render_one(request)
if outcome.frames is None:
    sys.exit(f"{outcome.error_type}: {outcome.error}")
Path(picture).write_bytes(encode(outcome.frames, Encoding("png")))
