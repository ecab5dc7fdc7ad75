"""What the tests of the commands share: small configs, real processes, and one trained run that
many of them look at.

A plugin of the tests that name it (pytest_plugins); PYTEST_DONT_REWRITE, since they import it
before that.
"""

import contextlib
import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import numpy as np
import pytest

from configs.vae import get_config
from experiments import config_file, settings
from experiments.overrides import Override

ROOT = Path(__file__).parents[1]
SMALL = {
    "model.network.hidden": (8,),
    "model.num_latents": 3,
    "optim.learning_rate.warmup_steps": 2,
    "train.batch_size": 100,
    "train.num_steps": 120,
    "train.log_every": 1,
    "train.eval_every": 20,
    "train.checkpoint_every": 10,
    "eval.num_samples": 1,
    "eval.num_importance_samples": 4,
}


# config.json of a version before configs named functions: no format, and fields of other names
OLD_RECORD = {
    "name": "vae-digits",
    "seed": 0,
    "replicas": 1,
    "sweep": {"learning_rates": []},
    "bound": "analytic_elbo",
    "estimator": "reparam",
    "num_samples": 1,
    "family": "mean_field",
    "precision": "float32",
    "mesh": {"data": -1, "model": 1},
    "data": {"name": "digits", "train": "all[:1257]", "test": "all[1437:]"},
    "model": {"network": "mlp", "hidden": [256, 256], "activation": "tanh", "num_latents": 10},
    "objective": {"beta": 1.0, "warmup": "none", "warmup_steps": 0, "free_bits": 0.0},
    "optim": {"name": "adam", "learning_rate": 3e-3, "schedule": "cosine", "ema": 0.998},
    "train": {"batch_size": 128, "num_steps": 4000, "log_every": 200},
    "eval": {"split": "test", "batch_size": 256},
}


def made(module, **changes):
    """A config as a command has it, with dotted fields set."""
    given = [Override(name.replace("__", "."), str(value)) for name, value in changes.items()]
    config = config_file.set_fields(module.get_config(), given)
    settings.validate(config)
    return config


def small(variant="digits", **changes):
    """A config of configs/vae.py that takes a second; `train__num_steps=5` sets train.num_steps."""
    config = get_config(variant)
    config.update_from_flattened_dict(
        SMALL | {name.replace("__", "."): value for name, value in changes.items()}
    )
    return config


def stub_evaluations(monkeypatch, elbo_at):
    """Replaces what is measured of a run by `elbo_at(state)`."""
    from experiments.evals import Measures
    from experiments.run.recorder import Recorder

    def evaluate(self, which, state):
        pair = {"mean": elbo_at(state), "stderr": 1.0}
        names = ("elbo", "log_lik", "kl", "mutual_information", "marginal_kl")
        arrays = {"kl_per_dimension": {"z": np.zeros(3)}, "active": {"z": np.ones(3, bool)}}
        return Measures(dict.fromkeys(names, pair) | {"active_units": 3}, arrays)

    monkeypatch.setattr(Recorder, "_measure", evaluate)


def as_flags(**changes):
    """The flags of a command that make its default config `small(**changes)`."""
    fields = SMALL | {name.replace("__", "."): value for name, value in changes.items()}
    return [
        "--config=configs/vae.py",
        *(f"--config.{name}={value}" for name, value in fields.items()),
    ]


class Prepared:
    """A program of tests that forks, see tests/fork_program.py: one task at a time."""

    def __init__(self, program, **variables):
        self._process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name(program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**environment(), **variables},
        )
        assert self._answer() == {"ready": True}

    def __call__(self, task):
        """The exit code of a task, or None where it was killed at its limit."""
        self._process.stdin.write(json.dumps(task) + "\n")
        self._process.stdin.flush()
        return self._answer()["code"]

    def close(self):
        """Ends the program."""
        self._process.stdin.close()
        assert self._process.wait(60) == 0

    def _answer(self):
        line = self._process.stdout.readline()
        assert line, "the program has ended"
        return json.loads(line)


class Commands:
    """Runs experiments.NAME in a process of its own; the processes of a session share their
    compiled programs.

    `commands(...)` forks a process that has imported JAX already, where the environment is the one
    that it was started in: what a command imports, and when, is for tests that call `start`.
    """

    def __init__(self, cache):
        self._cache = cache
        self._output = cache.with_name("output")
        self._output.mkdir()
        self._environment = environment()
        self._prepared = None

    def argv(self, name, *args):
        """The whole command line."""
        return [
            sys.executable,
            "-m",
            f"experiments.{name}",
            *map(str, args),
            f"--compilation_cache={self._cache}",
        ]

    def __call__(self, name, *args, timeout=300):
        """The finished process, with its stdout and stderr as text."""
        if environment() == self._environment:
            return self._forked(name, args, timeout)
        return subprocess.run(
            self.argv(name, *args),
            cwd=ROOT,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def _forked(self, name, args, timeout):
        if self._prepared is None:
            self._prepared = Prepared("fork_program.py")
        command = self.argv(name, *args)
        out = self._output / "out"
        err = self._output / "err"
        files = {"out": str(out), "err": str(err)}
        code = self._prepared({"argv": [name, *command[3:]], "limit": timeout, **files})
        if code is None:
            raise subprocess.TimeoutExpired(command, timeout, out.read_text(), err.read_text())
        return subprocess.CompletedProcess(command, code, out.read_text(), err.read_text())

    def close(self):
        """Ends the process that is forked."""
        if self._prepared is not None:
            self._prepared.close()

    def ok(self, name, *args):
        """The same, of a command that has to succeed."""
        done = self(name, *args)
        assert done.returncode == 0, done.stderr
        return done

    def start(self, name, *args, **streams):
        """The process, running."""
        return subprocess.Popen(self.argv(name, *args), cwd=ROOT, env=environment(), **streams)


def environment():
    """That of a command: the CPU, and no data or folder of the user's own."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    return {**kept, "JAX_PLATFORMS": "cpu", "PYTHONUNBUFFERED": "1"}


def on_a_terminal(command, *, columns):
    """What a command writes to stderr where that is a pseudo-terminal, and to stdout."""
    control, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=terminal
    )
    os.close(terminal)
    shown = b""
    with contextlib.suppress(OSError):  # what Linux says when the other end is closed
        while part := os.read(control, 4096):
            shown += part
    stdout = process.communicate()[0].decode()
    os.close(control)
    assert process.returncode == 0
    return shown.decode(), stdout


def notes(done):
    """The lines on stderr of a finished command, but for those of a heartbeat, which come on a
    busy machine.
    """
    return [line for line in done.stderr.splitlines() if not line.startswith(("still ", "now "))]


@pytest.fixture(scope="session")
def commands(tmp_path_factory):
    """The commands as processes."""
    with contextlib.closing(Commands(tmp_path_factory.mktemp("compiled"))) as made:
        yield made


@pytest.fixture(scope="session")
def trained(commands, tmp_path_factory):
    """The folder of an unbroken run of `small()`, and the process that made it; copy what you
    change.
    """
    folder = tmp_path_factory.mktemp("runs") / "trained"
    return folder, commands.ok("train", *as_flags(), f"--workdir={folder}")


def write_idx(folder, *, num_train=60, num_test=40, side=6):
    """The four files of MNIST with random images of another size; returns the folder."""
    rng = np.random.default_rng(0)
    for stem, num in (("train", num_train), ("t10k", num_test)):
        images = rng.integers(0, 256, (num, side, side), dtype=np.uint8)
        header = np.array([2051, num, side, side], ">u4").tobytes()
        (folder / f"{stem}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        labels = (np.arange(num) % 10).astype(np.uint8)
        (folder / f"{stem}-labels-idx1-ubyte").write_bytes(
            np.array([2049, num], ">u4").tobytes() + labels.tobytes()
        )
    return folder
