"""Runs commands and saves in forks of one prepared process, each with a fault in one of its writes.

A program of tests/test_no_loss.py, started with the library of tests/faults.c in LD_PRELOAD, since
that counts the writes of C++ too. Tasks and answers are those of tests/fork_program.py, and:

    {"save": FOLDER, "script": ...}  saves by `Checkpoints`, see `save`
    "folder", "at", "kind"           the fault, as faults.c has it
    "log"                            a file for the operations
"""

import ctypes
import os
import sys
from pathlib import Path

from fork_program import command, redirect, serve


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


def plain_pictures():
    """Has pictures be a few bytes, written as ever: drawing takes longer than the rest of a run."""
    from experiments.figures import page
    from vi_jax import files

    def write(fig, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_whole(path, lambda file: file.write(b"a picture"))

    page.write = write


def run(task):
    """The child: never returns."""
    redirect(task)
    plain_pictures()
    faults = ctypes.CDLL(os.environ["LD_PRELOAD"])
    log = task.get("log", "")
    faults.faults_arm(
        task["folder"].encode(), task["at"], task["kind"].encode(), log.encode() if log else None
    )
    if "argv" in task:
        command(task["argv"])
    else:
        save(task["save"], task["script"])
    sys.exit(0)


if __name__ == "__main__":
    serve(run)
