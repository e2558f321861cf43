"""Python imports this where the folder is on PYTHONPATH: prompts that name a way to die then do so while Sana draws."""

import ctypes
import os
import time

import wrapt


@wrapt.when_imported("models.sana")
def _poison(module):
    @wrapt.patch_function_wrapper(module, "Sana.render")
    def render(wrapped, instance, arguments, keywords):
        for request in arguments[0]:
            if "raises" in request.prompt:
                raise ValueError("poison")
            if "segfaults" in request.prompt:
                ctypes.string_at(0)
            if "exits" in request.prompt:
                os._exit(7)
            if "hangs" in request.prompt:
                time.sleep(3600)
            if "breaks the device" in request.prompt:
                import torch

                torch.zeros(1, device="cuda")[torch.ones(1, dtype=torch.long, device="cuda")].cpu()
        return wrapped(*arguments, **keywords)
