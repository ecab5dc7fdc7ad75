"""The commands of experiments/, run by benchmarks as processes of their own."""

import resource
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def run_command(command: str, *flags: str) -> float:
    """Runs experiments.COMMAND with its progress on this terminal; its seconds of processor time.

    Raises:
      RuntimeError: it failed.
    """
    before = children_seconds()
    argv = [sys.executable, "-m", f"experiments.{command}", *flags]
    done = subprocess.run(argv, cwd=ROOT, stdout=sys.stderr, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv[1:])} failed with {done.returncode}; see above.")
    return children_seconds() - before


def children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
