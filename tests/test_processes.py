"""Several processes of one run: how they are told of each other, and a command that two of them run
together.
"""

import json
import os
import shutil
import socket
import subprocess

import numpy as np
import pytest
from command_helpers import ROOT, as_flags, environment

from experiments.cli import UserError
from experiments.run import processes

pytest_plugins = ["command_helpers"]


@pytest.fixture
def alone(monkeypatch):
    """No launcher's variables."""
    names = [
        *processes.LAUNCHERS.values(),
        "TPU_WORKER_HOSTNAMES",
        "TPU_PROCESS_ADDRESSES",
        "MEGASCALE_COORDINATOR_ADDRESS",
    ]
    for name in names:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("variables", "several"),
    [
        ({}, False),
        ({"SLURM_NTASKS": "1"}, False),
        ({"SLURM_NTASKS": "8"}, True),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, True),
        ({"TPU_WORKER_HOSTNAMES": "a"}, False),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, True),
        ({"MEGASCALE_COORDINATOR_ADDRESS": "a:1"}, True),
    ],
)
def test_launchers_are_known_by_their_variables(alone, variables, several):
    for name, value in variables.items():
        alone.setenv(name, value)
    assert processes.launched() == several


def test_one_process_joins_nobody(alone):
    processes.join("", 0, -1)
    alone.setenv("SLURM_NTASKS", "8")
    processes.join("off", 0, -1)


@pytest.mark.parametrize(
    "given", [("here:1", 0, -1), ("", 2, 0), ("here:1", 2, 2), ("here:1", 2, -1)]
)
def test_flags_that_do_not_go_together_are_refused(alone, given):
    with pytest.raises(
        UserError, match="go together, with a process_id from 0 to num_processes - 1"
    ):
        processes.join(*given)


def test_alone_the_first_answers_itself():
    assert processes.from_first(lambda: [1, "two"]) == [1, "two"]
    assert processes.any_of_them(True) is True
    with pytest.raises(UserError, match="no"), processes.first_holds(refusing):
        pass


def refusing():
    raise UserError("no")


def losses(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: row["train/loss"] for row in rows}


def with_devices(number):
    return {
        **environment(),
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} "
        f"--xla_force_host_platform_device_count={number}",
    }


@pytest.mark.slow
def test_log_evidence_over_devices_is_that_of_one(commands, trained, tmp_path):
    """A batch of 32 on three devices: the last one is filled up twice, and every example counts
    once.
    """
    found = []
    for number in (1, 3):
        folder = tmp_path / str(number)
        shutil.copytree(trained[0], folder)
        done = subprocess.run(
            commands.argv("evaluate", f"--workdir={folder}", "--num_samples=6", "--batch_size=32"),
            cwd=ROOT,
            env=with_devices(number),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found.append(json.loads((folder / "evaluation-test.json").read_text())["log_evidence"])
    np.testing.assert_allclose(list(found[1].values()), list(found[0].values()), rtol=1e-5)


def test_two_processes_train_one_run_which_four_devices_end(commands, trained, tmp_path):
    """Begun on one device, stopped at 100, gone on with on four and in two processes of two: the
    losses of the unbroken run.
    """
    whole, _ = trained
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        coordinator = f"--coordinator=127.0.0.1:{s.getsockname()[1]}"
    both = tmp_path / "both", tmp_path / "four"
    for folder in both:
        shutil.copytree(whole, folder)
        for step in (110, 120):
            shutil.rmtree(folder / "checkpoints" / str(step))
    two = [
        subprocess.Popen(
            commands.argv(
                "train",
                *as_flags(),
                f"--workdir={both[0]}",
                coordinator,
                "--num_processes=2",
                f"--process_id={number}",
            ),
            cwd=ROOT,
            env=with_devices(2),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    said = [process.communicate(timeout=300) for process in two]
    assert [process.returncode for process in two] == [0, 0], said
    four = subprocess.run(
        commands.argv(
            "train",
            *as_flags(),
            f"--workdir={both[1]}",
            "--config.mesh.data=2",
            "--config.mesh.model=2",
        ),
        cwd=ROOT,
        env=with_devices(4),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert four.returncode == 0, four.stderr
    assert "on 4 devices, data 4 x model 1, in 2 processes" in said[0][1]
    assert "resuming the run" in said[0][1]
    assert "on 4 devices, data 2 x model 2" in four.stderr
    assert "vae-digits" not in said[1][0] + said[1][1]  # one of them speaks
    for folder in both:
        found = losses(folder)
        wanted = losses(whole)
        assert found.keys() == wanted.keys()
        np.testing.assert_allclose(list(found.values()), list(wanted.values()), rtol=1e-5)
