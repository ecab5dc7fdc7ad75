"""Runs commands and saves in forks of one prepared process, each with a fault in one of its writes.

A program of tests/test_no_loss.py, started with the library of tests/faults.c in LD_PRELOAD, since
that counts the writes of C++ too, and forked, since importing JAX takes longer than most of the
runs. It reads one task a line from stdin, JSON, and answers each with a line on stdout:

    {"argv": ["train", ...]}         the command experiments.train
    {"save": FOLDER, "script": ...}  saves by `Checkpoints`, see `save`
    "folder", "at", "kind"           the fault, as faults.c has it
    "log", "out"                     files for the operations, and for stdout and stderr
    "limit"                          seconds after which it is killed

The answer is {"code": exit code or -signal, null where it was killed at the limit, "seconds": ...}.
"""

import ctypes
import importlib
import json
import os
import runpy
import signal
import sys
import time
from pathlib import Path

# Slow to import, and without threads that a fork would lose.
PREPARED = (
    "jax",
    "flax.linen",
    "optax",
    "numpyro.distributions",
    "orbax.checkpoint.experimental.v1",
    "tensorstore",
    "sklearn.datasets",
    "matplotlib.pyplot",
    "vi_jax",
    "experiments.train",
    "experiments.run.checkpoints",
)


def command(argv):
    """Runs a command as `python -m experiments.NAME ...` does."""
    sys.argv = list(argv)
    runpy.run_module(f"experiments.{argv[0]}", run_name="__main__", alter_sys=True)


def state_of(step, seed=0):
    """A small state that is a function of its step."""
    import jax
    import jax.numpy as jnp

    from vi_jax.training import State

    params = {"w": jnp.arange(6.0) * step + seed}
    return State(jnp.int32(step), jax.random.key(seed), params, (), ())


def block_of(steps):
    """The sums of a block in which so many steps were taken."""
    import jax.numpy as jnp

    from vi_jax.training import Totals

    return Totals({"loss": jnp.float32(1 / 3)}, jnp.int32(1), jnp.int32(-1), jnp.int32(steps))


def save(folder, script):
    """Restores what is there and saves: a list of {"step", "elbo", "block", "seed"}; "saved.txt"
    beside the folder has a line for each that is whole.
    """
    from experiments.run.checkpoints import Checkpoints

    done = Path(folder).with_name("saved.txt")
    with Checkpoints(Path(folder), keep=script["keep"], keep_best=script["keep_best"]) as saves:
        saves.restore_latest(state_of(0))
        for one in script["saves"]:
            block = block_of(one["block"]) if one.get("block") else None
            saves.save(state_of(one["step"], one.get("seed", 0)), elbo=one.get("elbo"), block=block)
            saves.wait()
            with done.open("a") as file:
                file.write(f"{one['step']}\n")


def run(faults, task):
    """The child: never returns."""
    out = os.open(task["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(out, 1)
    os.dup2(out, 2)
    log = task.get("log", "")
    faults.faults_arm(
        task["folder"].encode(), task["at"], task["kind"].encode(), log.encode() if log else None
    )
    if "argv" in task:
        command(task["argv"])
    else:
        save(task["save"], task["script"])
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


def main():
    """One fork for each line."""
    faults = ctypes.CDLL(os.environ["LD_PRELOAD"])
    sys.path.insert(0, str(Path(__file__).parents[1]))
    for name in PREPARED:
        importlib.import_module(name)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        began = time.monotonic()
        pid = os.fork()
        if not pid:
            run(faults, task)
        code = waited(pid, task["limit"])
        print(json.dumps({"code": code, "seconds": time.monotonic() - began}), flush=True)


if __name__ == "__main__":
    main()
