"""config.sweep: numbers of a model that differ between the runs of one program, and how they are
chosen.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command_helpers import made
from ml_collections import ConfigDict

import vi_jax as vi
from configs.neural import lfads, plds
from experiments import sweep
from experiments.cli import UserError
from experiments.run import held_out, replicas_end
from vi_jax.models.table_vae import Column

pytest_plugins = ["command_helpers"]
VALIDATION = {"data__train": "train[:40]", "data__validation": "train[40:52]"}
SMALL = {
    "model.num_latents": 2,
    "model.width": 3,
    "model.generator_width": 3,
    "model.num_factors": 2,
    "train.batch_size": 20,
    "train.num_steps": 4,
    "train.log_every": 2,
    "train.eval_every": 4,
    "train.checkpoint_every": 4,
    "objective.beta.num_steps": 2,
    "optim.learning_rate.warmup_steps": 2,
    "eval.num_samples": 1,
    "eval.num_importance_samples": 2,
    "data.train": "train[:40]",
    "data.test": "test[:10]",
}


def test_each_run_has_a_combination_of_its_own():
    values = {"sweep__coordinated_dropout": ".1,.5", "sweep__learning_rates": "1e-3,2e-3"}
    config = made(lfads, replicas=2, seed=3, **values, **VALIDATION)
    runs = sweep.configs(config)
    assert sweep.count(config) == len(runs) == 8
    found = [(run.seed, run.optim.learning_rate.peak, run.model.hide) for run in runs]
    assert found[:4] == [(3, 1e-3, 0.1), (4, 1e-3, 0.1), (3, 1e-3, 0.5), (4, 1e-3, 0.5)]
    assert not any(map(sweep.is_several, runs))


@pytest.mark.parametrize(
    ("module", "fields", "said"),
    [
        (plds, VALIDATION, r"poisson_lds has no number 'hide'.*Models that have: lfads"),
        (lfads, {}, r"config\.data\.validation is empty; name one"),
        (lfads, {**VALIDATION, "sweep__coordinated_dropout": "0,.3"}, "different numbers above 0"),
        (lfads, {**VALIDATION, "sweep__coordinated_dropout": ".3,.3"}, "different numbers above 0"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused(module, fields, said):
    with pytest.raises(UserError, match=said):
        made(module, **{"sweep__coordinated_dropout": ".1,.3", **fields})


def test_shares_that_the_model_refuses_are_refused_by_it():
    config = made(lfads, sweep__coordinated_dropout=".3,1.5", **VALIDATION)
    columns = tuple([Column("poisson")] * 2)
    with pytest.raises(UserError, match=r"hide in \[0, 1\)"):
        sweep.require_models(sweep.configs(config), {"columns": columns, "max_steps": 3})


@pytest.mark.integration
def test_a_traced_share_trains_as_the_same_number_does():
    sizes = dict(num_latents=2, width=3, generator_width=3, num_factors=2)
    columns = [Column("poisson")] * 3
    params = jax.jit(vi.models.lfads(columns, **sizes).init)(jax.random.key(0))
    rng = np.random.default_rng(0)
    x = {"values": jnp.asarray(rng.poisson(1.0, (5, 3)), jnp.float32)}
    x["observed"] = jnp.ones((5, 3), bool)

    def loss(params, hide):
        terms = vi.models.lfads(columns, hide=hide, **sizes).train_terms
        found = terms(jax.random.key(1), params, x)
        return found.log_lik - sum(leaf.sum() for leaf in jax.tree.leaves(found.kl))

    several = jax.jit(jax.vmap(jax.grad(loss), (None, 0)))(params, jnp.array([0.2, 0.5]))
    for number, hide in enumerate((0.2, 0.5)):
        alone = jax.jit(jax.grad(loss), static_argnums=1)(params, hide)
        jax.tree.map(
            lambda a, b, number=number: np.testing.assert_allclose(a[number], b, atol=1e-5),
            several,
            alone,
        )


def test_a_swept_number_is_chosen_by_held_out_bins_of_validation():
    rows = [
        {
            "replica": which,
            "seed": 0,
            "learning_rate": 0.1,
            "coordinated_dropout": share,
            "elbo": {"mean": elbo, "stderr": 1.0},
            held_out.BITS: bits,
        }
        for which, (share, elbo, bits) in enumerate([(0.1, -10.0, 0.2), (0.5, -30.0, 0.4)])
    ]
    config = ConfigDict({"eval": {"split": "test"}, "name": "a", "sweep": {}})
    config.sweep.coordinated_dropout = (0.1, 0.5)
    curves = {
        replicas_end._name(row): [{"step": 9, "train/loss": float(row["replica"])}] for row in rows
    }
    (best, why) = replicas_end._best(config, rows, curves)
    assert best == 1
    assert "held-out bins on validation" in why
    table = replicas_end.table(config, rows)
    assert "coordinated dropout" in table
    assert "0.4000" in table


@pytest.mark.slow
def test_shares_of_hidden_bins_train_side_by_side(commands, tmp_path):
    """Each is the run by itself at its share; the choice is in the table."""
    place = tmp_path / "run"
    flags = [f"--config.{name}={value}" for name, value in SMALL.items()]
    flags = ["--config=configs/neural/lfads.py", *flags, "--config.data.validation=train[40:52]"]
    done = commands.ok(
        "train", *flags, "--config.sweep.coordinated_dropout=.2,.5", f"--workdir={place}"
    )
    rows = json.loads((place / "replicas.json").read_text())
    assert [row["coordinated_dropout"] for row in rows] == [0.2, 0.5]
    bits = [row[held_out.BITS] for row in rows]
    best = int(np.argmax(bits))
    assert f"replica_{best}  (the most bits per spike of held-out bins" in done.stdout
    commands.ok("train", *flags, "--config.model.hide=0.5", f"--workdir={tmp_path / 'alone'}")
    files = [place / "replica_1" / "metrics.jsonl", tmp_path / "alone" / "metrics.jsonl"]
    (mine, alone) = ([json.loads(line) for line in file.read_text().splitlines()] for file in files)
    for a, b in zip(mine, alone, strict=True):
        np.testing.assert_allclose(a["train/loss"], b["train/loss"], rtol=2e-5)
