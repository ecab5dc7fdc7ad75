"""Runs a program and tells waiting from computing, by the CPU time that it takes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

STILL_SECONDS = 30.0  # without CPU time: it waits
POLL_SECONDS = 0.2
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class Watched(NamedTuple):
    """How a program ended."""

    outcome: str  # "ended", "waits" (no CPU time), "computes" (at the limit)
    returncode: int | None
    seconds: float
    cpu_seconds: float
    output: str  # standard output and error, the stacks of a program that did not end included

    def __str__(self) -> str:
        return (
            f"{self.outcome} after {self.seconds:.0f} s and {self.cpu_seconds:.0f} s of CPU time, "
            f"return code {self.returncode}:\n{self.output[-8_000:]}"
        )


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and of all of its threads so far."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    user = int(after_name[11])
    system = int(after_name[12])
    return (user + system) / TICKS_PER_SECOND


def watch(
    command: list[str],
    *,
    log: Path,
    env: dict[str, str] | None = None,
    limit: float = 600.0,
    still: float = STILL_SECONDS,
) -> Watched:
    """Runs a command until it ends, takes no CPU time for `still` seconds, or `limit` has passed.

    A Python program that did not end prints the stacks of all of its threads.

    Args:
      log: a file for its output; no pipe, which would fill.
      env: added to the environment.
    """
    with log.open("w+") as output:
        process = subprocess.Popen(
            command,
            env={**os.environ, "PYTHONFAULTHANDLER": "1", **(env or {})},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        began = time.monotonic()
        moved = began
        used = 0.0
        outcome = "ended"
        while process.poll() is None:
            time.sleep(POLL_SECONDS)
            now = time.monotonic()
            try:
                seen = cpu_seconds(process.pid)
            except FileNotFoundError:  # it ended between the two looks
                continue
            if seen > used:
                used = seen
                moved = now
            if now - moved > still:
                outcome = "waits"
            elif now - began > limit:
                outcome = "computes"
            if outcome != "ended":
                process.send_signal(signal.SIGABRT)  # faulthandler prints the stacks
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        seconds = time.monotonic() - began
        output.seek(0)
        text = output.read()
    return Watched(outcome, process.returncode, seconds, used, text)


def python(*args: str) -> list[str]:
    """The command line of this interpreter."""
    return [sys.executable, "-u", *args]
