"""Python imports this where the folder is on PYTHONPATH: prompts that name a way to die then do so in their stage."""

import ctypes
import os
import signal
import time

import wrapt


class Unspeakable(Exception):
    def __str__(self):
        raise RuntimeError("no words")


def _act(prompt, stage):
    if f"raises in {stage}" in prompt:
        raise ValueError("poison")
    if f"interrupts {stage}" in prompt:
        raise KeyboardInterrupt
    if f"is unspeakable in {stage}" in prompt:
        raise Unspeakable
    if f"segfaults in {stage}" in prompt:
        ctypes.string_at(0)
    if f"exits in {stage}" in prompt:
        os._exit(7)
    if f"hangs in {stage}" in prompt:
        time.sleep(3600)
    if f"stops in {stage}" in prompt:
        os.kill(os.getpid(), signal.SIGSTOP)
    if f"is killed in {stage}" in prompt:
        os.kill(os.getpid(), signal.SIGKILL)


@wrapt.when_imported("rendermill.models.families.sana.text_to_image")
def _poison_drawing(module):
    @wrapt.patch_function_wrapper(module, "Sana.render")
    def render(wrapped, instance, arguments, keywords):
        for request in arguments[0]:
            _act(request.prompt, "rendering")
            if "breaks the device" in request.prompt:
                import torch

                torch.zeros(1, device="cuda")[torch.ones(1, dtype=torch.long, device="cuda")].cpu()
        return wrapped(*arguments, **keywords)


@wrapt.when_imported("rendermill.actors.media.encoders")
def _poison_encoding(module):
    @wrapt.patch_function_wrapper(module, "encode")
    def encode(wrapped, instance, arguments, keywords):
        _act(arguments[3]["prompt"], "encoding")
        return wrapped(*arguments, **keywords)


@wrapt.when_imported("rendermill.manifests.storage.folder")
def _poison_storing(module):
    @wrapt.patch_function_wrapper(module, "Folder.write_all")
    def write_all(wrapped, instance, arguments, keywords):
        for name in arguments[0]:
            _act(name.replace("-", " "), "storing")  # the id is part of the name
        return wrapped(*arguments, **keywords)
