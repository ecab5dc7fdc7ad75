"""A run that is killed and started again ends as the unbroken one: parameters to the last bit, metrics to the last byte.

Real processes and SIGKILL, on the CPU.
"""

import json
import random
import subprocess
import time

import pytest
from command_helpers import SMALL, as_flags
from helpers import tree_equal

from experiments import rundir, session
from experiments.checkpoints import Checkpoints

pytest_plugins = ("command_helpers",)

LAST = SMALL["train.num_steps"]


def final_state(folder):
    """The state in the last checkpoint of a finished run, its key as numbers."""
    config = rundir.read_config(folder)
    like = session.start_state(config, session.make_model(config, session.load_data(config)))
    with Checkpoints(folder / "checkpoints", keep=3) as checkpoints:
        assert checkpoints.steps[-1] == LAST
        state = checkpoints.restore_latest(like)
    return state._replace(key=session.jax.random.key_data(state.key))


def num_rows(folder):
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def run_until(commands, folder, reached):
    """Starts the command and kills it once `reached(seconds)`; its stderr, and whether it was still alive."""
    began = time.monotonic()
    process = commands.start(
        "train", *as_flags(), f"--workdir={folder}", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and not reached(time.monotonic() - began):
        assert time.monotonic() - began < 300, "the run did not get there"
        time.sleep(0.002)
    alive = process.poll() is None
    process.kill()
    return process.communicate()[1], alive


def assert_like_unbroken(folder, trained):
    whole, _ = trained
    assert tree_equal(final_state(folder), final_state(whole))
    assert (folder / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    timing = [json.loads(line)["step"] for line in (folder / "timing.jsonl").read_text().splitlines()]
    assert timing == list(range(1, LAST + 1))
    mine, theirs = (json.loads((path / "summary.json").read_text()) for path in (folder, whole))
    assert {**mine, "seconds": 0} == {**theirs, "seconds": 0}


def test_killed_twice_ends_as_the_unbroken_run(commands, trained, tmp_path):
    folder, draw = tmp_path / "run", random.Random(0)
    first, second = draw.randrange(12, 50), draw.randrange(60, 100)  # rows of metrics at which it is killed
    _, alive = run_until(commands, folder, lambda _: num_rows(folder) >= first)
    assert alive, "it ended before it could be killed"
    killed_at = num_rows(folder)
    assert first <= killed_at < second, "the machine is too fast for this test: make it take more steps"
    stderr, alive = run_until(commands, folder, lambda _: num_rows(folder) >= second)
    assert alive, "it ended before it could be killed"
    assert f"resuming the run in {folder} at step" in stderr
    last = commands.ok("train", *as_flags(), f"--workdir={folder}")
    assert f"resuming the run in {folder} at step" in last.stderr
    assert_like_unbroken(folder, trained)


@pytest.mark.slow
def test_killed_at_twenty_random_moments_ends_as_the_unbroken_run(commands, trained, tmp_path):
    """At any moment: in an import, a compile, a save, a figure."""
    draw, began = random.Random(1), time.monotonic()
    commands.ok("train", *as_flags(), f"--workdir={tmp_path / 'clock'}")
    seconds = time.monotonic() - began
    folder, rows = tmp_path / "run", []
    for _ in range(20):
        moment = draw.uniform(0.0, 1.1) * seconds
        stderr, _ = run_until(commands, folder, lambda now, moment=moment: now > moment)
        assert "Traceback" not in stderr
        assert "error" not in stderr
        rows.append(num_rows(folder))
    assert len(set(rows)) > 2, f"the kills fell on the same place: {rows}"
    commands.ok("train", *as_flags(), f"--workdir={folder}")
    assert_like_unbroken(folder, trained)


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
