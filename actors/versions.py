"""Versions of the packages that pixels depend on."""

import importlib.metadata
import platform

_PACKAGES = ("rendermill", "torch", "diffusers", "transformers", "safetensors", "tokenizers", "ftfy", "ray")


def versions() -> dict[str, str]:
    """Return the version of each package that is installed, by name; rendermill may run without being installed."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
