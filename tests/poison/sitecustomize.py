"""Python imports this where the folder is on PYTHONPATH: prompts that name a way to die then do so while Sana draws."""

import ctypes
import importlib.machinery
import os
import sys
import time


class _PoisonedLoader(importlib.machinery.SourceFileLoader):
    def exec_module(self, module):
        super().exec_module(module)
        render = module.Sana.render

        def poisoned(self, requests, embeddings):
            for request in requests:
                if "raises" in request.prompt:
                    raise ValueError("poison")
                if "segfaults" in request.prompt:
                    ctypes.string_at(0)
                if "exits" in request.prompt:
                    os._exit(7)
                if "hangs" in request.prompt:
                    time.sleep(3600)
            return render(self, requests, embeddings)

        module.Sana.render = poisoned


class _Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):  # noqa: ARG004
        if name != "models.sana":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        spec.loader = _PoisonedLoader(spec.loader.name, spec.loader.path)
        return spec


sys.meta_path.insert(0, _Finder)
