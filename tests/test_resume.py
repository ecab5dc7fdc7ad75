"""A run that is killed and started again ends as the unbroken one: parameters to the last bit,
metrics to the last byte.

Real processes and SIGKILL, on the CPU.
"""

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time

import pytest
from command_helpers import ROOT, SMALL, as_flags
from helpers import tree_equal

from experiments import cli
from experiments.cli import UserError
from experiments.run import lock, session
from experiments.run.checkpoints import Checkpoints
from experiments.run.record import read_config
from experiments.run.stopping import Stop

pytest_plugins = ("command_helpers",)

LAST = SMALL["train.num_steps"]


def final_state(folder):
    """The state in the last checkpoint of a finished run, its key as numbers."""
    config = read_config(folder)
    like = session.start_state(config, session.make_model(config, session.load_data(config)))
    with Checkpoints(folder / "checkpoints", keep=3) as checkpoints:
        assert checkpoints.steps[-1] == LAST
        state = checkpoints.restore_latest(like)
    return state._replace(key=session.jax.random.key_data(state.key))


def num_rows(folder):
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def run_until(commands, folder, reached, *flags, number=signal.SIGKILL, meanwhile=None):
    """Starts the command and sends it a signal once `reached(seconds)`; its stderr, its exit code,
    and whether it was still alive.

    `meanwhile()` is called just before the signal.
    """
    began = time.monotonic()
    process = commands.start(
        "train",
        *as_flags(),
        *flags,
        f"--workdir={folder}",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and not reached(time.monotonic() - began):
        assert time.monotonic() - began < 300, "the run did not get there"
        time.sleep(0.002)
    alive = process.poll() is None
    if meanwhile is not None:
        meanwhile()
    process.send_signal(number)
    return process.communicate()[1], process.returncode, alive


def assert_like_unbroken(folder, trained):
    whole, _ = trained
    assert tree_equal(final_state(folder), final_state(whole))
    assert (folder / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    timing = [
        json.loads(line)["step"] for line in (folder / "timing.jsonl").read_text().splitlines()
    ]
    assert timing == list(range(1, LAST + 1))
    mine, theirs = (json.loads((path / "summary.json").read_text()) for path in (folder, whole))
    assert {**mine, "seconds": 0} == {**theirs, "seconds": 0}


@pytest.mark.slow
def test_killed_and_then_stopped_ends_as_the_unbroken_run(commands, trained, tmp_path):
    """`kill -9`, then SIGTERM; while it goes on, nobody else may train there, and once it is dead
    anybody.
    """
    folder = tmp_path / "run"
    draw = random.Random(0)
    first = draw.randrange(12, 50)  # rows of metrics at which it is killed
    second = draw.randrange(60, 100)

    def is_locked():
        with pytest.raises(
            UserError,
            match=rf"a run is going on in --workdir={folder} "
            rf"\(process \d+ on {socket.gethostname()}, since",
        ):
            lock.locked(folder).__enter__()

    _, _, alive = run_until(
        commands, folder, lambda _: num_rows(folder) >= first, meanwhile=is_locked
    )
    assert alive, "it ended before it could be killed"
    killed_at = num_rows(folder)
    assert first <= killed_at < second, (
        "the machine is too fast for this test: make it take more steps"
    )
    with lock.locked(folder):
        pass
    stderr, code, alive = run_until(
        commands, folder, lambda _: num_rows(folder) >= second, number=signal.SIGTERM
    )
    assert alive, "it ended before it could be stopped"
    assert f"resuming the run in {folder} at step" in stderr
    assert code == cli.REQUEUE == 75
    [stopped_at] = re.findall(
        r"^stopped by SIGTERM; step (\d+) of 120 is saved: run the same command again to go on\.$",
        stderr,
        re.M,
    )
    # its evaluation is not begun
    unwritten = int(stopped_at) % SMALL["train.eval_every"] == 0 and num_rows(folder) < int(
        stopped_at
    )
    assert num_rows(folder) + unwritten == int(stopped_at) >= second, (
        "the block of steps is finished, and no other begun"
    )
    last = commands.ok("train", *as_flags(), f"--workdir={folder}")
    assert f"resuming the run in {folder} at step {stopped_at} of 120" in last.stderr
    assert_like_unbroken(folder, trained)


def on_devices(number, monkeypatch):
    """Makes the processes of a test see so many devices; the flags with which a batch lies evenly
    over them.
    """
    if number > 1:
        monkeypatch.setenv(
            "XLA_FLAGS",
            f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={number}",
        )
    return [f"--config.train.batch_size={SMALL['train.batch_size'] // number * number}"]


@pytest.mark.slow
@pytest.mark.parametrize(("signals", "devices"), [("kill -9", 1), ("any", 1), ("kill -9", 8)])
def test_stopped_at_twenty_random_moments_ends_as_the_unbroken_run(
    commands, tmp_path, monkeypatch, signals, devices
):
    """At any moment: in an import, a compile, a save, a figure; by SIGKILL alone, or by SIGTERM and
    SIGINT too.
    """
    flags = on_devices(devices, monkeypatch)
    draw = random.Random(1)
    whole = (
        tmp_path / "whole",
        commands.ok("train", *as_flags(), *flags, f"--workdir={tmp_path / 'whole'}"),
    )
    began = time.monotonic()
    commands.ok("train", *as_flags(), *flags, f"--workdir={tmp_path / 'clock'}")
    seconds = time.monotonic() - began
    folder = tmp_path / "run 0"
    rows = []
    codes = []
    for turn in range(20):
        done = num_rows(folder)
        if done == LAST:  # then the rest of the kills are of another run
            commands.ok("train", *as_flags(), *flags, f"--workdir={folder}")
            assert_like_unbroken(folder, whole)
            folder = tmp_path / f"run {turn}"
            done = 0
        number = (
            signal.SIGKILL
            if signals == "kill -9"
            else (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)[turn % 3]
        )
        moment = draw.uniform(0.0, 1.1) * seconds
        row = draw.randrange(done + 1, min(done + 30, LAST) + 1)

        def reached(
            now,
            moment=moment if turn % 2 else 1e9,
            row=row if turn % 2 == 0 else LAST,
            folder=folder,
        ):
            return now > moment or num_rows(folder) >= row

        stderr, code, _ = run_until(commands, folder, reached, *flags, number=number)
        # before this code is reached Python answers Ctrl-C by itself
        if code not in (-signal.SIGINT, 1):
            assert "Traceback" not in stderr
        assert "error" not in stderr
        rows.append(num_rows(folder))
        codes.append(code)
    assert len(set(rows)) > 5, f"the stops fell on the same places: {rows}"
    assert 75 in codes or signals == "kill -9"
    commands.ok("train", *as_flags(), *flags, f"--workdir={folder}")
    assert_like_unbroken(folder, whole)


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 8])
def test_killed_while_a_checkpoint_is_written(commands, tmp_path, monkeypatch, devices):
    """Twenty times, each at the moment at which the folder of an unfinished checkpoint is seen."""
    flags = [*on_devices(devices, monkeypatch), "--config.train.checkpoint_every=2"]
    whole = (
        tmp_path / "whole",
        commands.ok("train", *as_flags(), *flags, f"--workdir={tmp_path / 'whole'}"),
    )
    folder = tmp_path / "run"
    caught = 0
    for _ in range(20):
        done = num_rows(folder)

        def writing(_, done=done):
            return num_rows(folder) > done and any((folder / "checkpoints").glob("*tmp*"))

        stderr, _, alive = run_until(commands, folder, writing, *flags)
        if not alive:
            break
        assert "Traceback" not in stderr
        caught += any((folder / "checkpoints").glob("*tmp*"))
    assert caught >= 10, f"only {caught} kills fell into a save"
    commands.ok("train", *as_flags(), *flags, f"--workdir={folder}")
    assert_like_unbroken(folder, whole)


@pytest.mark.slow
def test_a_run_goes_on_on_another_number_of_devices(commands, tmp_path, monkeypatch):
    """Begun on 8, ended on 1: the sums are added in another order, and nothing else is
    different.
    """
    flags = ["--config.train.batch_size=96"]
    commands.ok("train", *as_flags(), *flags, f"--workdir={tmp_path / 'whole'}")
    with monkeypatch.context() as many:
        on_devices(8, many)
        _, _, alive = run_until(
            commands, tmp_path / "run", lambda _: num_rows(tmp_path / "run") >= 60, *flags
        )
    assert alive
    last = commands.ok("train", *as_flags(), *flags, f"--workdir={tmp_path / 'run'}")
    assert "resuming the run" in last.stderr
    mine, theirs = (
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").open()]
        for name in ("run", "whole")
    )
    assert (
        [row["step"] for row in mine] == [row["step"] for row in theirs] == list(range(1, LAST + 1))
    )
    for a, b in zip(mine, theirs, strict=True):
        assert a["train/loss"] == pytest.approx(b["train/loss"], rel=1e-5)


def test_a_second_signal_ends_a_process_at_once():
    code = (
        "import time; from experiments.run.stopping import Stop; stop = Stop()\n"
        "with stop.listening(), stop.deferred():\n"
        "    print('ready', flush=True)\n"
        "    while not stop._name: time.sleep(0.01)\n"
        "    print('first', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        for line in ("ready\n", "first\n"):
            assert process.stdout.readline() == line
            process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == -signal.SIGTERM


def test_a_signal_outside_of_the_loop_is_answered_where_it_comes():
    stop = Stop()
    before = signal.getsignal(signal.SIGTERM)
    with (
        pytest.raises(cli.Requeue, match=r"^stopped by SIGINT; nothing is lost: run the same"),
        stop.listening(),
    ):
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) == before
    stop = Stop()
    reached = []

    def loop():
        signal.raise_signal(signal.SIGTERM)
        reached.append(stop.asked())

    with pytest.raises(cli.Requeue, match="SIGTERM"), stop.listening(), stop.deferred():
        loop()
    assert reached == [True]


@pytest.mark.slow
def test_a_finished_run_makes_its_figures_again(commands, trained, tmp_path):
    """The same command on a finished run: no step is taken, nothing of the record changes."""
    import shutil

    folder = tmp_path / "run"
    shutil.copytree(trained[0], folder)
    (folder / "figures" / "samples.png").unlink()
    done = commands.ok("train", *as_flags(), f"--workdir={folder}")
    assert "is complete; its figures and summary are made again" in done.stderr
    assert (folder / "figures" / "samples.png").exists()
    assert_like_unbroken(folder, trained)
