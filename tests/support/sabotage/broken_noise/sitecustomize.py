"""Imported at start-up by every process of a job whose PYTHONPATH has this folder: noise then depends on the batch."""

import wrapt


@wrapt.when_imported("rendermill.models.parts.noise")
def _break(module):
    @wrapt.patch_function_wrapper(module, "noise")
    def _noise(wrapped, instance, arguments, keywords):
        drawn = wrapped(*arguments, **keywords)
        return drawn * (1 + 0.05 * drawn.shape[0])
