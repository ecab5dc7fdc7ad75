"""`python -m experiments.posterior` as a user runs it: a process, its words, and the folder it
leaves.
"""

import importlib.util
import json
import re
import signal

import jax
import numpy as np
import pytest
from command_helpers import ROOT

import vi_jax as vi
from experiments import config_file
from experiments.cli import UserError
from experiments.posteriors import config as posterior_config
from experiments.posteriors import models as posterior_models
from experiments.posteriors.progress import FitProgress, totals_of

pytest_plugins = ("command_helpers",)

CONFIGS = sorted((ROOT / "configs" / "posterior").glob("*.py"))


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_is_valid_and_says_how_to_run_it(path, tmp_path):
    module = load(path)
    assert f"--config=configs/posterior/{path.name}" in module.__doc__
    own = tmp_path / "own.py"
    own.write_text("def model():\n    pass\n")
    posterior_config.validate(
        module.get_config(f"{own}:model") if path.stem == "file" else module.get_config()
    )


def test_a_model_of_ones_own_leaves_a_folder_worth_looking_at(commands, tmp_path):
    (tmp_path / "own.py").write_text(
        "import numpyro\nimport numpyro.distributions as dist\n\n\n"
        "def model():\n    x = numpyro.sample('x', dist.Normal(1.0, 2.0).expand([2]).to_event(1))\n"
        "    numpyro.sample('y', dist.Normal(x.sum(), 1.0), obs=3.0)\n"
    )
    done = commands.ok(
        "posterior",
        f"--config=configs/posterior/file.py:{tmp_path}/own.py:model",
        f"--workdir={tmp_path}/run",
    )
    for text in ("verdict              reliable", "k-hat", "x[1]", "linear response", "4 figures"):
        assert text in done.stdout
    folder = tmp_path / "run"
    result = json.loads((folder / "result.json").read_text())
    assert result["verdict"] == "reliable"
    assert len(result["details"]["location_gradient"]) == 2
    # x ~ N(1, 4 I), y = 3 of x1 + x2 with variance 1: gain 4 / 9 for each, mean 1 + 4/9, variance 4
    # - 16/9
    moments = json.loads((folder / "moments.json").read_text())
    np.testing.assert_allclose(moments["mean"]["x"], 1 + 4 / 9, atol=0.15)
    np.testing.assert_allclose(moments["sd"]["x"], (4 - 16 / 9) ** 0.5, rtol=0.06)
    with np.load(folder / "draws.npz") as draws:
        assert draws["site/x"].shape == (4000, 2)
        np.testing.assert_allclose(np.exp(draws["log_weights"]).sum(), 1, rtol=1e-6)
    assert {path.name for path in (folder / "figures").iterdir()} == {
        "trace.png",
        "marginals.png",
        "pairs.png",
        "weights.png",
    }
    shown = commands.ok("posterior", "--show", f"--workdir={folder}").stdout
    assert shown.splitlines()[0] in done.stdout
    assert "x[1]" in shown
    with jax.enable_x64(True):
        saved = vi.load_result(folder / "result").moments()
    assert saved["mean"]["x"].tolist() == moments["mean"]["x"]
    again = commands(
        "posterior", "--config=configs/posterior/eight_schools.py", f"--workdir={folder}"
    )
    assert again.returncode == 2
    assert "holds a run of another config" in again.stderr


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="signals are POSIX's")
def test_a_fit_that_is_stopped_says_so(commands, tmp_path):
    (tmp_path / "own.py").write_text(
        "import os, signal\n\n\ndef model():\n    os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    done = commands(
        "posterior",
        f"--config=configs/posterior/file.py:{tmp_path}/own.py:model",
        f"--workdir={tmp_path}/run",
    )
    assert done.returncode == 75
    assert "stopped by SIGTERM; a fit is not kept in parts" in done.stderr
    assert "Traceback" not in done.stderr


OWN = (
    "import numpyro\nimport numpyro.distributions as dist\n\n\n"
    "def model(x, rows, scale=1.0):\n    mu = numpyro.sample('mu', dist.Normal(0.0, 1.0))\n"
    "    with numpyro.plate('rows', rows):\n        numpyro.sample('x', dist.Normal(mu, scale), "
    "obs=x)\n"
)


def test_a_model_takes_the_arrays_of_an_npz_and_a_fit_is_seen_on_its_way(commands, tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    np.savez(tmp_path / "data.npz", x=np.array([1.0, 2.0, 6.0]), rows=3)
    config = f"--config=configs/posterior/file.py:{tmp_path}/own.py:model"
    done = commands.ok(
        "posterior", config, f"--config.data={tmp_path}/data.npz", f"--workdir={tmp_path}/run"
    )
    moments = json.loads((tmp_path / "run" / "moments.json").read_text())
    # mu ~ N(0, 1), three x ~ N(mu, 1)
    np.testing.assert_allclose(moments["mean"]["mu"], 9 / 4, atol=0.05)
    assert len(json.loads((tmp_path / "run" / "data.json").read_text())["sha256"]) == 64
    lines = [line for line in done.stderr.splitlines() if line.startswith("step ")]
    assert lines
    line = r"step 3/[\d,]+  [\d,]+ steps/s  -\d+\.\d+ nats  at most \d+:\d\d left"
    assert re.fullmatch(line, lines[0])


class Picklable:
    pass


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        (
            None,
            r"model takes x, rows, scale: give them by --config.data=FILE.npz, "
            r"written by np.savez\(FILE, x=...\)",
        ),
        ({"x": [1.0]}, "has no rows, it has x"),
        (
            {"x": [1.0], "rows": 1, "scal": 2.0},
            r"also has scal \(did you mean 'scale'\?\): leave it out",
        ),
        ({"x": ["a"], "rows": 1}, "'x' is of <U1; a model's arguments are numbers"),
        ({"x": np.array([Picklable()]), "rows": 1}, "'x' is damaged or no plain array"),
    ],
    ids=["none", "missing", "unexpected", "text", "pickled"],
)
def test_data_that_are_not_the_models_are_one_sentence(tmp_path, arrays, words):
    (tmp_path / "own.py").write_text(OWN)
    if arrays is not None:
        np.savez(tmp_path / "data.npz", **arrays)
    with pytest.raises(UserError, match=words):
        posterior_models.get_model(
            f"file:{tmp_path}/own.py:model", "", "" if arrays is None else f"{tmp_path}/data.npz"
        )


def test_what_is_no_npz_is_one_sentence_and_defaults_may_stay_away(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    name = f"file:{tmp_path}/own.py:model"
    (tmp_path / "text.npz").write_text("x = 1")
    with pytest.raises(UserError, match=r"cannot be read as an \.npz"):
        posterior_models.get_model(name, "", f"{tmp_path}/text.npz")
    np.savez(tmp_path / "data.npz", x=[1.0, 2.0], rows=2)
    model, _ = posterior_models.get_model(name, "", f"{tmp_path}/data.npz")
    assert set(model.keywords) == {"x", "rows"}
    assert isinstance(model.keywords["rows"], int)


def test_progress_has_the_rate_without_compiling_and_begins_again_for_a_second_method(capsys):
    seconds = [0.0]
    progress = FitProgress([3_000, 50], lambda: seconds[0])
    for at, step in (
        (100.0, 1),  # compiled until then
        (107.0, 2),
        (107.1, 3),
        (121.0, 5),
        (300.0, 1),
        (304.0, 9),
        (400.0, 1),
        (500.0, 2),
    ):
        seconds[0] = at
        progress(step, -1.5)
    assert capsys.readouterr().err.splitlines() == [
        "step 2/3,000  0.14 steps/s  -1.500 nats  at most 5:49:46 left",
        "step 5/3,000  0.19 steps/s  -1.500 nats  at most 4:22:04 left",
        "step 9/50  2 steps/s  -1.500 nats  at most 0:20 left",
        "step 2  0.01 steps/s  -1.500 nats",
    ]


def test_the_steps_of_what_fit_picks_are_known():
    target = vi.targets.from_log_density(lambda z: -z @ z, 2)
    assert totals_of(None, target) == [vi.methods.bam().num_steps, 100_000 // 64]
    assert totals_of(vi.methods.laplace(num_steps=70), target) == [70]


def test_a_config_that_is_not_there_is_told_which_are():
    with pytest.raises(UserError) as told:
        config_file.load("configs/posterior/eight.py", [])
    assert "configs/posterior/eight_schools.py, " in str(told.value)
    assert "configs/vae.py" in str(told.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": "pathfnder"}, "did you mean 'pathfinder'"),
        ({"model": "eight_school_centered"}, "did you mean 'eight_schools_centered'"),
        ({"model": "file:nowhere.py:f"}, "there is no file 'nowhere.py'"),
        ({"data": "mine.npz"}, "has its own data; it goes with file:PATH.py:FUNCTION"),
        ({"num_draws": 3}, "at least 25"),
        ({"num_starts": 0}, "at least 1"),
        ({"combine": "mean"}, "it can be best, stack"),
    ],
)
def test_wrong_fields_are_one_sentence(changes, words):
    config = load(ROOT / "configs" / "posterior" / "eight_schools.py").get_config()
    config.update(changes)
    with pytest.raises(UserError, match=words):
        posterior_config.validate(config)
