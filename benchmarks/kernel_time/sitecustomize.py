"""Python imports this where the folder is on PYTHONPATH: renderers of Sana then measure when their GPU runs a kernel.

From the batch KERNEL_TIME_FIRST on, for KERNEL_TIME_BATCHES batches, torch's profiler (CUPTI) notes every kernel and
copy, and CUDA events mark the stages. The file KERNEL_TIME_FILE gets what came of it, as JSON: seconds from the first
batch's beginning to the last one's end, the share of them with a kernel or copy running, and seconds by stage.
"""

import json
import os
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import wrapt

_FIRST, _NUM_BATCHES = int(os.environ["KERNEL_TIME_FIRST"]), int(os.environ["KERNEL_TIME_BATCHES"])
_STAGES = ("encode", "denoise", "decode")


class _Measurement:
    """The measurement of one process."""

    def __init__(self) -> None:
        import torch

        self._torch = torch
        self._profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA])
        self._stages: list[tuple[str, Any, Any]] = []
        self.num_batches = 0

    @property
    def is_on(self) -> bool:
        return _FIRST < self.num_batches <= _FIRST + _NUM_BATCHES

    def begin_batch(self) -> None:
        self.num_batches += 1
        if self.num_batches == _FIRST + 1:
            self._torch.cuda.synchronize()
            self._profiler.start()

    def end_batch(self) -> None:
        if self.num_batches == _FIRST + _NUM_BATCHES:
            self._torch.cuda.synchronize()
            self._profiler.stop()
            Path(os.environ["KERNEL_TIME_FILE"]).write_text(json.dumps(self._result()))

    def stage(self, name: str, call: Callable[[], Any]) -> Any:
        if not self.is_on:
            return call()
        start, end = (self._torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        result = call()
        end.record()
        self._stages.append((name, start, end))
        return result

    def _result(self) -> dict[str, Any]:
        events = [
            event
            for event in self._profiler.profiler.kineto_results.events()
            if event.device_type() == self._torch.autograd.DeviceType.CUDA and event.duration_ns() > 0
        ]
        spans = sorted((event.start_ns(), event.start_ns() + event.duration_ns()) for event in events)
        busy, until, gaps = 0, spans[0][0], []
        for start, end in spans:
            if start > until:
                gaps.append(start - until)
            busy += max(0, end - max(start, until))
            until = max(until, end)
        seconds = Counter[str]()
        for name, start, end in self._stages:
            seconds[name] += start.elapsed_time(end) / 1000
        between = [before[2].elapsed_time(after[1]) / 1000 for before, after in pairwise(self._stages)]
        return {
            "seconds": (until - spans[0][0]) / 1e9,
            "busy": busy / (until - spans[0][0]),
            "num_kernels": len(spans),
            "stages": dict(seconds) | {"between stages": sum(between)},
            "longest_gaps": [gap / 1e9 for gap in sorted(gaps, reverse=True)[:20]],
        }


@wrapt.when_imported("rendermill.models.families.sana.text_to_image")
def _measure(module: ModuleType) -> None:
    measurement = _Measurement()

    @wrapt.patch_function_wrapper(module, "Sana.render")
    def render(wrapped: Callable[..., Any], instance: Any, arguments: Any, keywords: Any) -> Any:
        if arguments[0][0].num_inference_steps == 1:  # a rehearsal
            return wrapped(*arguments, **keywords)
        measurement.begin_batch()
        rendered = wrapped(*arguments, **keywords)
        measurement.end_batch()
        return rendered

    for name in _STAGES:

        @wrapt.patch_function_wrapper(module, f"Sana.{name}")
        def stage(wrapped: Callable[..., Any], instance: Any, arguments: Any, keywords: Any, name: str = name) -> Any:
            return measurement.stage(name, lambda: wrapped(*arguments, **keywords))
