"""A step that is not finite: the run stops before it or leaves it out, keeps what led to it, and it
can be run again alone.
"""

import pickle
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command_helpers import small, stub_evaluations
from helpers import tree_equal

from experiments import build
from experiments.cli import UserError
from experiments.evals import closing
from experiments.run import diagnosis, metrics, nonfinite, session, single
from experiments.run.checkpoints import Checkpoints
from experiments.run.folder import open_folder
from experiments.run.record import FORMAT, read_config, to_plain
from vi_jax import files
from vi_jax.training import State, batch_rows, shuffle

pytestmark = pytest.mark.usefixtures("no_key_check")

# 1,257 examples are 13 batches of 100; the planted one is in one batch of each epoch, or in two
# where the last is filled with it.
FEW = dict(
    data__binarisation="none",
    model__likelihood={"name": "gaussian", "sigma": 0.3, "link": "sigmoid"},
    train__num_steps=30,
    train__log_every=15,
    train__eval_every=30,
    train__checkpoint_every=15,
)


@pytest.fixture
def planted(monkeypatch):
    """A loss that takes the root of -1 where a batch holds one example; returns the number of that
    row.
    """
    monkeypatch.setattr(closing, "finish", lambda *args: {})
    stub_evaluations(monkeypatch, lambda state: 0.0)
    row = 1000
    plain = build.loss
    target = session.load_data(small()).train.x[row] / np.float32(16)

    def loss(config, model, num_data=None):
        sound = plain(config, model, num_data)

        def spoiled(params, key, x, step):
            value, info = sound(params, key, x, step)
            there = (jnp.abs(x - target) < 1e-6).all((1, 2)).any()
            return value + jnp.sqrt(jnp.where(there, -1.0, 1.0)), info

        return spoiled

    monkeypatch.setattr(build, "loss", loss)
    return row


def bad_steps(config, row):
    """The steps whose batch holds a row, by the definition."""
    dataset = session.load_data(config)
    key = session.start_state(config, session.make_model(config, dataset)).key
    size = config.train.batch_size
    num_batches = -(-dataset.train.num // size)
    found = []
    for number in range(config.train.num_steps):
        epoch, position = divmod(number, num_batches)
        if position == 0:
            order = shuffle(key, jnp.int32(epoch), dataset.train.num)
        found += [number] if row in np.asarray(batch_rows(order, position, size)) else []
    return found


def read(path, like):
    """A moment of a run without labels."""
    return nonfinite.read(path, like, nonfinite.read_batch(path, with_labels=False))


def run(folder, config, *, resumed=False):
    folder.mkdir(exist_ok=True)
    record = {"format": FORMAT, **to_plain(config)}
    files.write_json(folder / "config.json", record)
    single.train(config, folder, resumed=resumed)


@pytest.mark.integration
@pytest.mark.parametrize(
    "loop",
    [
        "compiled",
        pytest.param("stepwise", marks=pytest.mark.slow),
        pytest.param("host", marks=pytest.mark.slow),
    ],
)
def test_a_bad_step_is_kept_and_runs_again_alone(planted, tmp_path, capsys, loop):
    """In the middle of a block, after a checkpoint or before the first."""
    changes = {
        "host": dict(data__device_limit_mb=0),
        "compiled": {},
        "stepwise": dict(train__loop="stepwise"),
    }[loop]
    config = small(**FEW, **changes)
    folder = tmp_path / "run"
    bad = bad_steps(config, planted)[0]
    with pytest.raises(UserError) as stopped:
        run(folder, config)
    path = folder / "nonfinite" / f"step_{bad}.npz"
    assert f"was not finite at step {bad}; nothing was computed from it. In {folder}, " in str(
        stopped.value
    )
    assert (
        f"are in {path}, and python -m experiments.replay --workdir={folder} runs it alone"
        in str(stopped.value)
    )
    capsys.readouterr()

    assert diagnosis.replay(read_config(folder), folder) == 0
    said = capsys.readouterr().out
    assert said.startswith(
        f"step {bad} of vae-digits, from {path}\n  batch        100 examples (8, 8), levels 0 to "
        "16 of 0 to 16, mean "
    )
    assert re.search(r"^  parameters   \d+ arrays, all finite, at most ", said, re.M)
    assert re.search(r"^  loss +nan$", said, re.M)
    assert re.search(r"^  log_lik +-?[\d.]+$", said, re.M)
    assert re.search(
        r"^  first        nan in the loss: `sqrt` at test_replay.py:\d+ \(.*spoiled\)$", said, re.M
    )
    assert "  debug_nans   invalid value (nan) encountered in sqrt\n" in said

    moment = read(
        path, session.start_state(config, session.make_model(config, session.load_data(config)))
    )
    assert planted in moment.rows
    np.testing.assert_array_equal(moment.batch, session.load_data(config).train.x[moment.rows])
    assert int(moment.state.step) == bad


@pytest.mark.slow
def test_the_state_that_is_kept_is_that_of_the_run(planted, tmp_path):
    config = small(**FEW | dict(train__log_every=1, train__checkpoint_every=1))
    folder = tmp_path / "run"
    with pytest.raises(UserError, match="not finite"):
        run(folder, config)
    like = session.start_state(config, session.make_model(config, session.load_data(config)))
    bad = nonfinite.recorded(folder)[0]
    moment = read(folder / "nonfinite" / f"step_{bad}.npz", like)
    with Checkpoints(folder / "checkpoints", keep=3, read_only=True) as checkpoints:
        state = (checkpoints.restore_latest(like) if bad else None) or like
    assert int(state.step) == bad
    plain = [s._replace(key=jax.random.key_data(s.key)) for s in (state, moment.state)]
    assert tree_equal(*plain)


@pytest.mark.integration
def test_steps_may_be_left_out(planted, tmp_path, capsys):
    """The run goes on to its end; it is stopped and resumed on the way, and its count with it."""
    skip = dict(train__on_nonfinite="skip", train__max_skipped=5)
    config = small(**FEW, **skip)
    folder = tmp_path / "run"
    bad = bad_steps(config, planted)
    assert len(bad) in (2, 3, 4, 5)
    half = small(**FEW | dict(train__num_steps=15), **skip)
    # the schedule of the first half is another; the count is the same
    for part, resumed in ((half, False), (config, True)):
        run(folder, part, resumed=resumed)
    rows = metrics.read_rows(folder / metrics.METRICS)
    assert [row["train/skipped"] for row in rows] == [
        sum(number < 15 for number in bad),
        sum(number >= 15 for number in bad),
    ]
    assert all(np.isfinite(row["train/loss"]) for row in rows)
    assert (
        f"up to step 30, {len(bad)} steps were not finite and are left out; 5 may be"
        in capsys.readouterr().err
    )
    model = session.make_model(config, session.load_data(config))
    with Checkpoints(folder / "checkpoints", keep=3, read_only=True) as checkpoints:
        state = checkpoints.restore_latest(session.start_state(config, model))
    assert int(state.skipped) == len(bad)
    assert int(state.opt_state[0].count) == 30 - len(bad)
    assert bool(nonfinite.is_finite(state.params))


@pytest.mark.slow
def test_a_run_that_stopped_may_go_on_with_skip(planted, tmp_path, capsys):
    config = small(**FEW)
    folder = tmp_path / "run"
    with pytest.raises(UserError, match="not finite"):
        run(folder, config)
    skip = small(**FEW, train__on_nonfinite="skip")
    assert open_folder(folder, skip, overwrite=False) is True
    assert (
        "note: train.on_nonfinite was 'stop' and is 'skip', from here on."
        in capsys.readouterr().err
    )
    single.train(skip, folder, resumed=True)
    rows = metrics.read_rows(folder / metrics.METRICS)
    assert [row["step"] for row in rows] == [15, 30]
    assert sum(row.get("train/skipped", 0) for row in rows) == len(bad_steps(config, planted))


@pytest.mark.slow
def test_beyond_its_limit_a_run_stops(planted, tmp_path):
    config = small(**FEW, train__on_nonfinite="skip", train__max_skipped=1)
    folder = tmp_path / "run"
    second = bad_steps(config, planted)[1]
    with pytest.raises(
        UserError,
        match=rf"not finite at step {second}; nothing was computed from it, "
        r"after 1 that were left out\.",
    ):
        run(folder, config)
    assert nonfinite.recorded(folder) == [second]


# --- which step it was
# ----------------------------------------------------------------------------------------------


def state_of(step, value=1.0):
    return State(
        jnp.int32(step),
        jax.random.key(0),
        {"w": jnp.float32(value)},
        (jnp.int32(3), jnp.ones(2)),
        (),
    )


def test_a_gradient_that_shows_only_in_the_state_is_found():
    """After the last step of a block, before a checkpoint could be made of it."""
    assert nonfinite.first_bad_step(state_of(10), -1) == -1
    assert nonfinite.first_bad_step(state_of(10), 7) == 7
    assert nonfinite.first_bad_step(state_of(10, jnp.inf), -1) == 9
    assert (
        nonfinite.first_bad_step(
            state_of(10)._replace(opt_state=(jnp.int32(3), jnp.array([1.0, jnp.nan]))), -1
        )
        == 9
    )


@pytest.mark.integration
def test_the_step_before_is_kept_where_its_gradient_was_the_first(monkeypatch, tmp_path):
    """A gradient is measured at some steps only; the loss of the next one shows it."""
    config = small(train__num_steps=20)
    built = session.build_all(config)
    fresh = session.start_state(config, built.model)

    def step(config, model, units, *, num_data=None, grad_norm_every=None):
        return lambda state, x: (
            state,
            {
                "loss": jnp.where(state.step < 7, 1.0, jnp.nan),
                "grad_norm": jnp.where(state.step < 6, 1.0, jnp.inf),
            },
        )

    monkeypatch.setattr(build, "step", step)
    path = nonfinite.record(
        tmp_path,
        7,
        lambda number: fresh._replace(step=jnp.int32(number)),
        built=built,
    )
    assert path.name == "step_6.npz"
    assert int(read(path, fresh).state.step) == 6


# --- files that are not to be trusted
# -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A run folder with one moment, and its config."""
    folder = tmp_path_factory.mktemp("kept")
    config = small()
    built = session.build_all(config)
    state = session.start_state(config, built.model)._replace(step=jnp.int32(4))
    nonfinite.write(folder / "nonfinite" / "step_4.npz", nonfinite._moment(state, built))
    return folder, config


@pytest.mark.integration
def test_a_finite_step_says_so(kept, capsys):
    folder, config = kept
    assert diagnosis.replay(config, folder) == 1
    assert "it is finite here" in capsys.readouterr().out


@pytest.mark.integration
def test_a_step_that_was_not_kept(kept, tmp_path):
    folder, config = kept
    with pytest.raises(UserError, match="has kept no step 5; it has 4"):
        diagnosis.replay(config, folder, 5)
    with pytest.raises(UserError, match="has kept no step that was not finite"):
        diagnosis.replay(config, tmp_path)


class Bomb:
    """Says so if it is ever unpickled."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('unpickled')",))


@pytest.mark.parametrize(
    "how", ["pickle", "object array", "cut", "emptied", "other names", "other shapes"]
)
def test_a_damaged_or_foreign_moment_is_a_sentence(kept, tmp_path, how):
    folder, config = kept
    path = tmp_path / "nonfinite" / "step_4.npz"
    path.parent.mkdir()
    content = (folder / "nonfinite" / "step_4.npz").read_bytes()
    with np.load(folder / "nonfinite" / "step_4.npz") as opened:
        arrays = dict(opened)
    if how == "pickle":
        path.write_bytes(pickle.dumps(Bomb()))
    elif how == "object array":
        np.savez(path, **{**arrays, "batch": np.array([Bomb()], dtype=object)})
    elif how == "other names":
        np.savez(path, batch=arrays["batch"], num_levels=arrays["num_levels"])
    elif how == "other shapes":
        np.savez(path, **{**arrays, "state/step": np.zeros(3, np.int32)})
    else:
        path.write_bytes(content[: len(content) // 2] if how == "cut" else b"")
    with pytest.raises(
        UserError, match=r"step_4\.npz (cannot be read|is of another model: step is int32 \(3,\))"
    ):
        diagnosis.replay(config, tmp_path)
