"""Job files that tests write into the current folder."""

from pathlib import Path

SMALL = "manifest: prompts.parquet\noutput: out\nmodels: {sana: {checkpoint: org/sana}}\n"


def write(**files: str) -> None:
    for name, text in files.items():
        path = Path(name.replace("__", "/") + ".yaml")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
