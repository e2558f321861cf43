"""Versions of the packages that pixels depend on."""

import importlib.metadata
import platform

_PACKAGES = ("rendermill", "torch", "diffusers", "transformers", "safetensors", "tokenizers", "ftfy", "ray")


def versions() -> dict[str, str]:
    """Package name → version; without those that are not installed (rendermill itself, run from its source folder)."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
