"""Sends this process the signals that the variable SIGNALS names: one after each part that a roll-up replaces."""

import os
import signal

import wrapt

SIGNALS = [getattr(signal, name) for name in os.environ.get("SIGNALS", "").split()]


@wrapt.when_imported("rendermill.manifests.output.fence")
def _strike(module):
    @wrapt.patch_function_wrapper(module, "FencedFolder.replace")
    def replace(wrapped, instance, arguments, keywords):
        stamp = wrapped(*arguments, **keywords)
        if SIGNALS:
            signal.raise_signal(SIGNALS.pop(0))
        return stamp
