"""Runs commands in forks of one prepared process: importing JAX takes longer than most of them do.

A program of tests/command_helpers.py, and the ground of tests/fault_program.py. It reads one task a
line from stdin, JSON, and answers each with a line on stdout:

    {"argv": ["train", ...]}   the command experiments.train
    "out", "err"               files for stdout and stderr; without "err" both go to "out"
    "limit"                    seconds after which it is killed

The answer is {"code": exit code or -signal, null where it was killed at the limit, "seconds": ...}.
"""

import importlib
import json
import os
import pkgutil
import runpy
import signal
import sys
import time
from pathlib import Path

import shared_contexts

# Slow to import, and without threads that a fork would lose; the modules of experiments with them.
PREPARED = (
    "jax",
    "flax.linen",
    "optax",
    "numpyro.distributions",
    "orbax.checkpoint.experimental.v1",
    "tensorstore",
    "sklearn.datasets",
    "matplotlib.pyplot",
    "matplotlib.backends.backend_agg",
    "tensorboardX",
    "vi_jax",
)


def command(argv):
    """Runs a command as `python -m experiments.NAME ...` does."""
    sys.argv = list(argv)
    sys.modules.pop(f"experiments.{argv[0]}", None)  # it is run, and not imported
    runpy.run_module(f"experiments.{argv[0]}", run_name="__main__", alter_sys=True)


def redirect(task):
    """Nothing comes in; what goes out goes to the files of a task."""
    out = os.open(task["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    err = os.open(task["err"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC) if "err" in task else out
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(out, 1)
    os.dup2(err, 2)


def run(task):
    """The child of a command: never returns."""
    redirect(task)
    command(task["argv"])
    sys.exit(0)


def waited(pid, limit):
    """The exit code of a child, which is killed at the limit."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def serve(child):
    """One fork for each line; `child(task)` never returns."""
    sys.path[0] = str(Path(__file__).parents[1])  # as `python -m` has it, for the folder of tests
    import experiments

    ours = (found.name for found in pkgutil.walk_packages(experiments.__path__, "experiments."))
    for name in (*PREPARED, *ours):
        importlib.import_module(name)
    shared_contexts.install()
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        began = time.monotonic()
        pid = os.fork()
        if not pid:
            child(task)
        code = waited(pid, task["limit"])
        print(json.dumps({"code": code, "seconds": time.monotonic() - began}), flush=True)


if __name__ == "__main__":
    serve(run)
