"""`objective.estimator=auto`: what is measured, what is chosen, and that a run goes on with it."""

import json

import jax.numpy as jnp
import pytest

from configs.iwae import get_config
from experiments import config_file, settings
from experiments.cli import UserError
from experiments.overrides import Override
from experiments.run import estimators
from experiments.run.estimators import Measured

pytest_plugins = ["command_helpers"]
SMALL = (
    "model.num_latents=3",
    "model.network.hidden=(8,)",
    "train.num_steps=20",
    "train.log_every=10",
    "train.eval_every=20",
    "train.checkpoint_every=10",
    "optim.learning_rate.warmup_steps=2",
    "eval.num_samples=1",
    "eval.num_importance_samples=4",
)


def small(*fields):
    given = [Override(*field.split("=", 1)) for field in (*SMALL, *fields)]
    config = config_file.set_fields(get_config("one_layer"), given)
    settings.validate(config)
    return config


def test_the_least_variance_times_time_is_chosen_and_the_rest_is_said():
    found = [Measured("a", 2.0, 0.003), Measured("b", 1.0, 0.004), Measured("c", 0.0, 0.0, "no")]
    lines = estimators.table(found, "b")
    assert [line.split()[0] for line in lines[1:3]] == ["b", "a"]
    assert lines[2].split()[-1] == "1.50"
    assert lines[-2:] == ["  not valid here: c", "objective.estimator is b now"]


def test_an_estimator_without_noise_is_chosen_and_one_that_is_not_finite_is_refused():
    lines = estimators.table([Measured("still", 0.0, 0.003), Measured("b", 1.0, 0.004)], "still")
    assert lines[1].split()[0] == "still"
    config = small()

    def broken(params, key, batch, step):
        del key, batch, step
        return jnp.sum(params) * jnp.nan, None

    found = estimators._measured(config, "broken", broken, jnp.ones(2), None)
    assert "not finite" in found.refused


def test_auto_is_a_name_of_estimators_alone():
    assert settings.leaves_estimator_open(small("objective.estimator=auto"))
    assert not settings.leaves_estimator_open(small("objective.estimator=dreg"))
    with pytest.raises(UserError, match=r"can be .*vimco, auto, or one of your own"):
        small("objective.estimator=automatic")
    with pytest.raises(UserError, match="can be"):
        small("model.prior=auto")


@pytest.mark.integration
@pytest.mark.usefixtures("no_key_check")
def test_dreg_is_found_to_have_less_noise_than_reparam_on_iwae(tmp_path):
    config = small("objective.estimator=auto", "objective.num_samples=20")
    found = {each.name: each for each in estimators.settle(config, tmp_path)}
    assert found["dreg"].variance < 0.5 * found["reparam"].variance
    for name in ("disarm", "price", "stl"):
        assert "valid for" in found[name].refused
    assert not {"gumbel_softmax", "straight_through"} & set(found)
    valid = [each for each in found.values() if not each.refused]
    least = min(valid, key=lambda each: each.cost)
    assert config.objective.estimator.name == least.name


@pytest.mark.slow
def test_a_run_goes_on_with_what_was_chosen(commands, tmp_path):
    place = tmp_path / "run"
    fields = [f"--config.{field}" for field in (*SMALL, "objective.estimator=auto")]
    flags = ("--config=configs/iwae.py:one_layer", *fields, f"--workdir={place}")
    done = commands.ok("train", *flags)
    table = json.loads((place / "estimators.json").read_text())
    recorded = json.loads((place / "config.json").read_text())["objective"]["estimator"]
    assert recorded["name"] == table["chosen"]
    assert f"objective.estimator is {table['chosen']} now" in done.stderr
    again = commands.ok("train", *flags)
    assert f"goes on with {table['chosen']}" in again.stderr
    assert "is complete" in again.stderr
    assert json.loads((place / "estimators.json").read_text()) == table
    commands.ok("evaluate", f"--workdir={place}", "--num_samples=4")
