"""The table of quantization schemes. To add one, write its module in this folder, and its entry here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Scheme:
    """A quantization scheme and what it needs.

    Attributes:
        implementation: `module:function`; the function quantizes a denoiser's blocks (an `nn.ModuleList`) in place.
        needs_gpu: whether it works on GPUs only.
        dtype: the dtype that the denoiser must have; None: any.
        package: a Python package that it needs; None: none.
        extra: the extra of rendermill that installs the package.
    """

    implementation: str
    needs_gpu: bool = False
    dtype: str | None = None
    package: str | None = None
    extra: str | None = None

    def problem(self, name: str, on_gpu: bool, dtypes: set[str]) -> str | None:
        """Return why the scheme cannot be used, in words that say what it needs; None if it can.

        Args:
            name: of the scheme.
            on_gpu: whether the model runs on GPUs.
            dtypes: of the denoiser's components.
        """
        if self.needs_gpu and not on_gpu:
            return f"{name} needs a GPU; leave it out on a CPU"
        if self.package is not None and find_spec(self.package) is None:
            return f"{name} needs {self.package}; install it with: pip install 'rendermill[{self.extra}]'"
        if self.dtype is not None and dtypes != {self.dtype}:
            return f"{name} needs `dtype: {self.dtype}`"
        return None

    def quantize(self, blocks: "nn.ModuleList") -> None:
        """Quantize a denoiser's blocks in place."""
        module, function = self.implementation.split(":")
        implementation: Callable[[Any], None] = getattr(import_module(module), function)
        implementation(blocks)


SCHEMES: Mapping[str, Scheme] = {
    "float8": Scheme(
        "rendermill.models.quantization.float8:quantize",
        needs_gpu=True,
        dtype="bfloat16",
        package="torchao",
        extra="float8",
    )
}
