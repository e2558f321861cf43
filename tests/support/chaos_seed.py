"""A pytest plugin: the seed of the chaos tests, which is another one each day."""

import datetime
import os

CHAOS_SEED = os.environ.get("CHAOS_SEED") or datetime.datetime.now(datetime.UTC).strftime("%Y%m%d")
"""Set the variable to repeat the run of another day."""
os.environ["CHAOS_SEED"] = CHAOS_SEED  # the processes that pytest-xdist starts inherit it, also after midnight


def pytest_report_header() -> str:
    return f"chaos: CHAOS_SEED={CHAOS_SEED}"
