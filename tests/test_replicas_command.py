"""`--config.replicas`: each replica has the metrics of the run by itself, resumes with the others,
and is a run folder.
"""

import json
import shutil

import jax
import numpy as np
import pytest
from command_helpers import as_flags, small
from helpers import tree_equal
from ml_collections import ConfigDict

from experiments import settings
from experiments.cli import UserError
from experiments.evals import closing
from experiments.evals.base import Measures
from experiments.figures import replica_curves
from experiments.run import replicas_end, session
from experiments.sweep import configs as sweep_configs

pytest_plugins = ["command_helpers"]


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def counted():
    """What two runs are built of, and how often JAX has traced the model's own functions."""
    config = small(replicas=2, eval__num_importance_samples=4)
    built = session.build_all(config, session.load_data(config))
    traced = []

    def remember(name, function):
        def of(*args):
            traced.append(name)
            return function(*args)

        return of

    model = built.model
    densities = model.densities._replace(guide=remember("guide", model.densities.guide))
    model = model._replace(init=remember("init", model.init), densities=densities)
    return built._replace(model=model), sweep_configs(config), traced


def test_replicas_begin_as_runs_by_themselves_by_one_program(counted):
    (built, configs, traced) = counted
    states = session.start_states(configs, built.model)
    assert traced == ["init"]
    for config, state in zip(configs, states, strict=True):
        alone = session.start_state(config, built.model)
        assert tree_equal(state._replace(key=()), alone._replace(key=()))
        assert tree_equal(jax.random.key_data(state.key), jax.random.key_data(alone.key))


def test_log_p_of_all_replicas_is_one_program(counted, tmp_path):
    (built, configs, traced) = counted
    params = session.start_state(configs[0], built.model).params
    summarise = closing.make_summarise(built)
    found = []
    traces = []
    for config in configs:
        own = built._replace(config=config, keys=session.keys(config))
        with jax.debug_key_reuse(False):  # as in the command
            found.append(summarise(own, tmp_path, params, Measures({}, {})))
        traces.append(traced.count("guide"))
    assert traces[0] == traces[1] > 0
    assert found[0]["log_evidence"] != found[1]["log_evidence"]  # keys of their own


@pytest.fixture(scope="module")
def sweep(commands, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep") / "run"
    flags = [
        *as_flags(),
        "--config.replicas=2",
        "--config.sweep.learning_rates=(3e-3,1e9)",
        f"--workdir={folder}",
    ]
    return folder, flags, commands.ok("train", *flags)


@pytest.mark.slow
def test_a_replica_is_the_run_by_itself(sweep, trained):
    folder, _, done = sweep
    assert "4 replicas side by side" in done.stderr
    names = ("train/loss", "train/learning_rate", "test/elbo")
    for mine, alone in zip(rows(folder / "replica_0"), rows(trained[0]), strict=True):
        for name in names:
            assert (name in mine) == (name in alone)
            if name in mine:
                np.testing.assert_allclose(mine[name], alone[name], rtol=2e-5)
    assert (
        rows(folder / "replica_1")[-1]["train/loss"] != rows(folder / "replica_0")[-1]["train/loss"]
    )


def test_one_that_diverges_is_told_and_the_table_has_the_rest(sweep):
    folder, _, done = sweep
    table = json.loads((folder / "replicas.json").read_text())
    assert [(row["seed"], row["learning_rate"]) for row in table] == [
        (0, 3e-3),
        (1, 3e-3),
        (0, 1e9),
        (1, 1e9),
    ]
    assert ["stopped" in row for row in table] == [False, False, True, True]
    assert "replica 2 stops: its loss or gradient was not finite at step" in done.stderr
    assert "over 2 seeds at 0.003: ELBO" in done.stdout
    assert (folder / "figures" / "replicas.png").stat().st_size > 10_000


@pytest.mark.slow
def test_a_sweep_that_was_killed_between_two_saves_ends_as_it_would(sweep, commands, tmp_path):
    whole, flags, _ = sweep
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    for gone in (
        "replica_0/checkpoints/120",
        "replica_1/checkpoints/120",
        "replica_1/checkpoints/110",
    ):
        shutil.rmtree(folder / gone)
    done = commands.ok("train", *flags[:-1], f"--workdir={folder}")
    assert "resuming 2 replicas at step 100 of 120" in done.stderr
    for name in ("replica_0", "replica_1"):
        assert rows(folder / name) == rows(whole / name)


def test_replicas_are_run_folders_and_their_sweep_is_none(sweep, commands):
    folder, _, _ = sweep
    assert (
        "ELBO"
        in commands.ok("evaluate", f"--workdir={folder / 'replica_1'}", "--num_samples=4").stdout
    )
    refused = commands("evaluate", f"--workdir={folder}")
    assert refused.returncode == 2
    assert "holds replicas, each a run of its own: name one" in refused.stderr


def test_configs_of_the_runs():
    config = small(replicas=2, sweep__learning_rates=(1e-3, 1e-2), seed=7)
    runs = sweep_configs(config)
    assert [(run.seed, run.optim.learning_rate.peak, run.replicas) for run in runs] == [
        (7, 1e-3, 1),
        (8, 1e-3, 1),
        (7, 1e-2, 1),
        (8, 1e-2, 1),
    ]
    for wrong in (
        {"sweep__learning_rates": (1e-3, 1e-3)},
        {"sweep__learning_rates": (-1.0,)},
        {"replicas": 0},
    ):
        with pytest.raises(UserError):
            settings.validate(small(**wrong))
    with pytest.raises(UserError, match=r"they need config\.train\.loop=compiled"):
        settings.validate(small(replicas=2, train__loop="stepwise"))


def test_curves_want_runs(tmp_path):
    with pytest.raises(ValueError, match="one or more runs"):
        replica_curves(tmp_path / "a.png", {}, key="test/elbo", title="none")
    runs = {"a": [{"step": 1, "test/elbo": float("nan")}], "b": []}
    path = replica_curves(tmp_path / "a.png", runs, key="test/elbo", title="none")
    assert path.exists()


@pytest.mark.parametrize(
    ("split", "expected", "why"), [("test", 0, "training loss"), ("validation", 1, "validation")]
)
def test_the_replica_that_is_pointed_to_is_not_chosen_by_test_examples(split, expected, why):
    rows = [
        {"replica": which, "seed": which, "learning_rate": 0.1, "elbo": {"mean": mean}}
        for which, mean in enumerate((-30.0, -20.0))
    ]
    rows.append({"replica": 2, "seed": 2, "learning_rate": 0.1, "stopped": 5})
    losses = (10.0, 15.0, 1.0)
    curves = {
        replicas_end._name(row): [{"step": 9, "train/loss": loss}]
        for row, loss in zip(rows, losses, strict=True)
    }
    config = ConfigDict({"eval": {"split": split}})
    (best, said) = replicas_end._best(config, rows, curves)
    assert best == expected
    assert why in said
