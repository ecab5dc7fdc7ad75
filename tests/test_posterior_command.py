"""`python -m experiments.posterior` as a user runs it: a process, its words, and the folder it leaves."""

import importlib.util
import json

import numpy as np
import pytest
from command_helpers import ROOT

from experiments import posterior
from experiments.cli import UserError

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
    posterior.validate(module.get_config(f"{own}:model") if path.stem == "file" else module.get_config())


def test_a_model_of_ones_own_leaves_a_folder_worth_looking_at(commands, tmp_path):
    (tmp_path / "own.py").write_text(
        "import numpyro\nimport numpyro.distributions as dist\n\n\n"
        "def model():\n    x = numpyro.sample('x', dist.Normal(1.0, 2.0).expand([2]).to_event(1))\n"
        "    numpyro.sample('y', dist.Normal(x.sum(), 1.0), obs=3.0)\n"
    )
    done = commands.ok("posterior", f"--config=configs/posterior/file.py:{tmp_path}/own.py:model", f"--workdir={tmp_path}/run")
    for text in ("verdict              reliable", "k-hat", "x[1]", "linear response", "4 figures"):
        assert text in done.stdout
    folder = tmp_path / "run"
    result = json.loads((folder / "result.json").read_text())
    assert result["verdict"] == "reliable"
    assert len(result["details"]["location_gradient"]) == 2
    # x ~ N(1, 4 I), y = 3 of x1 + x2 with variance 1: gain 4 / 9 for each, mean 1 + 4/9, variance 4 - 16/9
    moments = json.loads((folder / "moments.json").read_text())
    np.testing.assert_allclose(moments["mean"]["x"], 1 + 4 / 9, atol=0.15)
    np.testing.assert_allclose(moments["sd"]["x"], (4 - 16 / 9) ** 0.5, rtol=0.06)
    with np.load(folder / "draws.npz") as draws:
        assert draws["site/x"].shape == (4000, 2)
        np.testing.assert_allclose(np.exp(draws["log_weights"]).sum(), 1, rtol=1e-6)
    assert {path.name for path in (folder / "figures").iterdir()} == {"trace.png", "marginals.png", "pairs.png", "weights.png"}
    again = commands("posterior", "--config=configs/posterior/eight_schools.py", f"--workdir={folder}")
    assert again.returncode == 2
    assert "holds a run of another config" in again.stderr


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": "pathfnder"}, "did you mean 'pathfinder'"),
        ({"model": "eight_school_centered"}, "did you mean 'eight_schools_centered'"),
        ({"model": "file:nowhere.py:f"}, "there is no file 'nowhere.py'"),
        ({"num_draws": 3}, "at least 25"),
        ({"num_starts": 0}, "at least 1"),
        ({"combine": "mean"}, "it can be best, stack"),
    ],
)
def test_wrong_fields_are_one_sentence(changes, words):
    config = load(ROOT / "configs" / "posterior" / "eight_schools.py").get_config()
    config.update(changes)
    with pytest.raises(UserError, match=words):
        posterior.validate(config)
