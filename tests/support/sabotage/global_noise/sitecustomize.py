"""Imported at start-up by every process of a job whose PYTHONPATH has this folder: noise then follows no item."""

import wrapt


@wrapt.when_imported("rendermill.models.parts.noise")
def _break(module):
    @wrapt.patch_function_wrapper(module, "generators")
    def _generators(wrapped, instance, arguments, keywords):
        import torch

        return [torch.Generator("cpu").manual_seed(int(torch.randint(2**31, ()))) for _ in arguments[0]]
