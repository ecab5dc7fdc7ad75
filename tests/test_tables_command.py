"""Runs on tables: on the device and streamed, their records of a bad step, and the commands."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command_helpers import made

import vi_jax as vi
from configs import table, vae
from experiments.cli import UserError
from experiments.run import estimate, nonfinite, session

pytest_plugins = ["command_helpers"]

SMALL = {
    "model.hidden": "(8,)",
    "model.num_latents": 2,
    "train.batch_size": 32,
    "train.num_steps": 40,
    "train.log_every": 10,
    "train.eval_every": 20,
    "train.checkpoint_every": 20,
    "eval.num_samples": 1,
    "eval.num_importance_samples": 4,
}
TABLE_FIELDS = {
    "data.sentinel": "-1",
    "data.label_column": "group",
    "data.covariates": "batch",
    "data.exposure": "total",
    "data.positive": "log",
    "data.kinds": "visits=negative_binomial",
}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A csv with a column of every usual kind, and with missing values."""
    rng = np.random.default_rng(0)
    rows = ["id,height,dose,visits,genes,smokes,grade,stage,batch,group"]
    for i in range(120):
        height = "" if i % 9 == 0 else f"{rng.normal(170, 9):.2f}"
        visits = -1 if i % 7 == 0 else rng.negative_binomial(2, 0.2)
        grade = "NA" if i % 11 == 0 else "abc"[i % 3]
        rows.append(
            f"r{i},{height},{np.exp(rng.normal()):.4f},{visits},{rng.poisson(4) + 1},"
            f"{'yes' if rng.random() > 0.4 else 'no'},{grade},{rng.integers(3, 7)},"
            f"{'pq'[i % 2]},{'uvw'[i % 3]}"
        )
    path = tmp_path_factory.mktemp("csv") / "people.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def on(file, **changes):
    fields = {name.replace(".", "__"): value for name, value in (SMALL | TABLE_FIELDS).items()}
    return made(table, **fields | {"data__name": f"csv:{file}"} | changes)


def test_a_table_of_all_kinds_is_read_as_the_fields_say(file):
    dataset = session.load_data(on(file))
    kinds = {column.name: column.kind for column in dataset.table.columns}
    assert kinds == {
        "height": "log_normal",
        "dose": "log_normal",
        "visits": "negative_binomial",
        "genes": "poisson",
        "smokes": "bernoulli",
        "grade": "categorical",
        "stage": "ordinal",
    }
    assert set(dataset.train.x) == {"values", "observed", "exposure", "covariates"}
    assert len(dataset.report) <= 10
    assert dataset.train.ids[0].startswith("r")


@pytest.mark.slow
def test_training_on_the_host_is_training_on_the_device(file):
    """Streamed rows, missing ones too, give the same parameters."""
    ends = []
    for limit in (2048, 0):
        config = on(file, data__device_limit_mb=limit)
        built = session.build_all(config)
        run, data = session.make_run(built, vi.shard.ALONE)
        state, info = run(session.start_state(config, built.model), data, 12)
        assert int(info.bad_step) < 0
        ends.append(state.params)
    for one, other in zip(*map(jax.tree.leaves, ends), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-6)


@pytest.mark.integration
def test_a_bad_step_of_a_table_is_kept_and_read_again(file, tmp_path):
    config = on(file)
    built = session.build_all(config)
    state = session.start_state(config, built.model)
    path = nonfinite.record(
        tmp_path, 3, lambda step: state._replace(step=jnp.int32(step)), built=built
    )
    batch = nonfinite.read_batch(path, with_labels=False)
    assert batch.table == built.dataset.table
    moment = nonfinite.read(path, state, batch)
    for name, stored in built.dataset.train.x.items():
        np.testing.assert_array_equal(moment.batch[name], stored[moment.rows])


@pytest.mark.integration
def test_what_a_table_takes_is_estimated(file):
    estimate.require_run(on(file), session.load_data(on(file)))
    config = on(file, train__batch_size=2 * 10**9)
    dataset = session.load_data(config)
    with pytest.raises(UserError, match="takes at least"):
        estimate.require_run(config, dataset)


@pytest.mark.parametrize(
    ("module", "fields", "match"),
    [
        (vae, {}, "--config=configs/table.py --config.data.name=csv:"),
        (table, {"data__name": "digits", "data__kind": "images"}, "--config=configs/vae.py"),
        (table, {"data__with_labels": True}, "config.data.covariates names"),
    ],
)
def test_what_does_not_fit_is_answered_with_what_would_do(file, module, fields, match):
    config = made(module, **{"data__name": f"csv:{file}"} | fields)
    with pytest.raises(UserError, match=match):
        session.examples(config, session.build_all(config).dataset.train)


def flags(file, *more):
    fields = SMALL | TABLE_FIELDS | {"data.name": f"csv:{file}"}
    return [
        "--config=configs/table.py",
        *(f"--config.{name}={value}" for name, value in fields.items()),
        *more,
    ]


def test_a_table_is_trained_and_goes_on_and_is_evaluated(commands, file, tmp_path):
    folder = tmp_path / "run"
    done = commands.ok("train", *flags(file), f"--workdir={folder}")
    assert "data: taken for" in done.stderr
    assert "in the units of the data" in done.stdout
    summary = json.loads((folder / "summary.json").read_text())
    names = ("log_evidence", "log_evidence_data_units", "log_evidence_standardised")
    assert all(np.isfinite(summary[name]["mean"]) for name in names)
    again = commands.ok("train", *flags(file), f"--workdir={folder}")
    assert "is complete" in again.stderr
    commands.ok("evaluate", f"--workdir={folder}", "--num_samples=4")


def test_replicas_train_on_a_table(commands, file, tmp_path):
    commands.ok("train", *flags(file, "--config.replicas=2"), f"--workdir={tmp_path / 'run'}")


def test_the_report_is_printed_alone(commands, file):
    done = commands.ok("data", *flags(file))
    lines = done.stdout.splitlines()
    assert lines[0].endswith("a table of 120 rows x 7 columns")
    assert len(lines) <= 10
    assert any(line.startswith("missing: ") and "visits" in line for line in lines)
