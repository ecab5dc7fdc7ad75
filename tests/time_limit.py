"""A time limit of each test: at its end all threads' stacks are printed and the process ends.

So a hang is a failure that says where it hangs. Under xdist the worker is reported as crashed in
that test, and another goes on with the rest.

conftest.py imports the hooks.
"""

import faulthandler
import os
import sys

import pytest

SECONDS = 600.0  # many times what the longest test takes, on a busy machine
TIMES_AS_LONG = {"integration": 2.0, "slow": 6.0}  # by marker

_STDERR = pytest.StashKey[int]()


def pytest_addoption(parser):
    parser.addini(
        "seconds_per_test",
        "a test that takes longer ends the process; twice that for integration tests, six times "
        "for slow ones",
        default=str(SECONDS),
    )


def pytest_configure(config):
    # Standard error itself: while a test runs, what it prints is captured.
    config.stash[_STDERR] = os.dup(sys.__stderr__.fileno())


def limit(item):
    """Seconds that a test may take."""
    factor = max(
        [times for name, times in TIMES_AS_LONG.items() if item.get_closest_marker(name)],
        default=1.0,
    )
    return factor * float(item.config.getini("seconds_per_test"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    stderr = item.config.stash[_STDERR]
    faulthandler.dump_traceback_later(limit(item), exit=True, file=stderr)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()
