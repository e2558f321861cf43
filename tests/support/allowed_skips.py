"""A pytest plugin: a run fails if a test was skipped for a reason that is not listed here."""

import shutil

import pytest

HAS_APT = shutil.which("apt-get") is not None
ALLOWED = {
    "needs a CUDA GPU": True,
    "needs kubectl": True,  # no Debian package and no wheel has it
    "may not mount a small disk here": True,  # containers often lack the right to
    "needs mitmproxy": not HAS_APT,  # .ci/run installs it with apt
    "the S3 server cannot be installed here": not HAS_APT,
}
"""Whether tests may be skipped here, by the beginning of the reason."""

unexpected = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[unexpected] = []
    config.pluginmanager.register(_Skips(config))


class _Skips:
    def __init__(self, config: pytest.Config) -> None:
        self._found = config.stash[unexpected]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a skip that is not allowed; a report of an expected failure has no reason."""
        if not report.skipped or not isinstance(report.longrepr, tuple):
            return
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if not any(reason.startswith(beginning) for beginning, is_allowed in ALLOWED.items() if is_allowed):
            self._found.append(f"{report.nodeid}: {reason}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.config.stash[unexpected] and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.stash[unexpected]:
        terminalreporter.section("skipped for a reason that tests/support/allowed_skips.py does not list", red=True)
        for line in config.stash[unexpected]:
            terminalreporter.write_line(line)
