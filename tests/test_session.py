"""The parts behind the commands: the alarm, streaming, binarisation, the record of a run, its
folder, its measures.
"""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command_helpers import small, stub_evaluations
from helpers import assert_mean, tree_allclose

import vi_jax as vi
from experiments import build, cli, evals
from experiments.cli import UserError
from experiments.evals import closing, evidence
from experiments.evals.base import mean_stderr
from experiments.evals.collapse import collapse_alarm
from experiments.run import lock, metrics, session, single
from experiments.run.contents import DATA
from experiments.run.folder import check_data, default_folder, open_folder
from experiments.run.record import from_plain, read_config, to_plain
from experiments.run.streaming import make_streaming_run
from vi_jax import files
from vi_jax.training import make_run, make_stepwise_run

pytestmark = pytest.mark.usefixtures("no_key_check")


@pytest.fixture
def quiet_end(monkeypatch):
    """A run without its closing evaluation and figures."""
    monkeypatch.setattr(closing, "finish", lambda *args: {})


@pytest.fixture
def no_evaluation(monkeypatch, quiet_end):
    """A run that measures nothing on the test split."""
    stub_evaluations(monkeypatch, lambda state: 0.0)


def run_folder(folder, config, *, resumed=False):
    """Trains in this process; returns the rows of metrics."""
    folder.mkdir(exist_ok=True)
    single.train(config, folder, resumed=resumed)
    return metrics.read_rows(folder / metrics.METRICS)


@pytest.mark.parametrize(
    ("steps", "which", "message"),
    [
        ((), "latest", "has no checkpoint yet; train first"),
        ((), "best", "has no checkpoint yet; train first"),
        ((100, 110), "7", "--checkpoint=7 is none of latest, best and the steps that are kept"),
        ((100, 110), "110", None),
        ((100, 110), "latest", None),
        ((100,), "best", None),  # whether one is known is seen when it is read
    ],
)
def test_a_checkpoint_that_is_not_there_is_told_by_its_folder(tmp_path, steps, which, message):
    for step in steps:
        (tmp_path / "checkpoints" / str(step)).mkdir(parents=True)
    if message is None:
        session.require_checkpoint(small(), tmp_path, which)
        return
    with pytest.raises(UserError, match=re.escape(message)):
        session.require_checkpoint(small(), tmp_path, which)


# --- posterior collapse
# ---------------------------------------------------------------------------------------------


def measures(active, dims=10, kl_dims=1):
    """Of a model with so many active latents; `kl_dims` 0: the KL is known as a whole alone."""
    summary = {"mutual_information": {"mean": 0.01}, "kl": {"mean": 0.02}}
    kl = np.zeros(dims) if kl_dims else np.zeros(())
    arrays = {"kl_per_dimension": {"z": kl}, "active": {"z": np.arange(dims) < active}}
    return evals.Measures(summary, arrays)


@pytest.mark.parametrize(
    ("active", "dims", "alarms"),
    [
        (0, 10, True),
        (1, 10, True),
        (2, 10, False),
        (10, 10, False),
        (0, 2, True),
        (1, 2, False),
        (5, 50, True),
        (6, 50, False),
    ],
)
def test_alarm_is_of_few_active_units(active, dims, alarms):
    alarm = collapse_alarm(measures(active, dims), small(), 100)
    assert bool(alarm) == alarms
    if alarms:
        assert (
            "every latent ignores x" if active == 0 else f"only {active} of {dims} latents"
        ) in alarm
        assert "posterior collapse at step 100" in alarm
        assert "KL 0.020 nats, mutual information 0.010 nats" in alarm


def test_alarm_waits_for_the_warm_up():
    """120 steps, 60 of them warm-up: judged from step 72 on."""
    warmup = {"name": "linear_warmup", "num_steps": 60}
    config = small(objective__beta=warmup)
    assert collapse_alarm(measures(0), config, 71) is None
    assert collapse_alarm(measures(0), config, 72)
    assert collapse_alarm(measures(0), small(), 11) is None
    assert collapse_alarm(measures(0), small(), 12)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "--config.objective.beta=linear_warmup --config.objective.beta.num_steps=30"),
        ({}, "--config.objective.free_bits="),
        ({}, "--config.model.network.hidden"),
        (dict(objective__beta=4.0), "a smaller --config.objective.beta"),
        (
            dict(model__likelihood={"name": "gaussian", "sigma": 0.5}, data__binarisation="none"),
            "a smaller --config.model.likelihood.sigma",
        ),
    ],
)
def test_alarm_names_what_to_try(changes, words):
    assert words in collapse_alarm(measures(0), small(**changes), 100)


def test_alarm_names_nothing_that_would_be_refused():
    alarm = collapse_alarm(measures(0, kl_dims=0), small(model__family="full_rank"), 100)
    assert "free_bits" not in alarm
    assert "a smaller --config.objective.beta" not in alarm
    objective = {"name": "wake_wake", "num_samples": 3}
    other = collapse_alarm(measures(0), small(objective=objective), 100)
    assert "linear_warmup" not in other
    assert "free_bits" not in other


HEALTH = dict(
    model__network__hidden=(32,),
    train__num_steps=300,
    train__log_every=100,
    train__eval_every=300,
    train__checkpoint_every=300,
)


@pytest.mark.integration
def test_a_collapsed_run_raises_the_alarm(tmp_path, quiet_end, capsys):
    rows = run_folder(tmp_path / "run", small(**HEALTH, objective__beta=50.0))
    assert rows[-1]["test/active_units"] == 0
    assert rows[-1]["test/kl"] < 0.1
    assert rows[-1]["alarm"].startswith(
        "ALARM posterior collapse at step 300: every latent ignores x"
    )
    assert "ALARM" in capsys.readouterr().err


@pytest.mark.integration
def test_a_healthy_run_raises_none(tmp_path, quiet_end, capsys):
    rows = run_folder(tmp_path / "run", small(**HEALTH))
    assert rows[-1]["test/active_units"] > 0
    assert not any("alarm" in row for row in rows)
    assert "ALARM" not in capsys.readouterr().err


# --- a loss that is not finite
# --------------------------------------------------------------------------------------


@pytest.mark.integration
def test_not_finite_is_one_sentence_that_names_the_step(tmp_path, no_evaluation):
    """The rate starts at 0 and rises to 1e9: the first steps are sound, and saved."""
    config = small(
        optim__name="sgd",
        optim__learning_rate__peak=1e9,
        optim__learning_rate__warmup_steps=100,
        train__checkpoint_every=1,
        train__eval_every=100,
    )
    with pytest.raises(UserError) as caught:
        run_folder(tmp_path / "run", config)
    text = str(caught.value)
    rows = metrics.read_rows(tmp_path / "run" / metrics.METRICS)
    assert f"not finite at step {len(rows)};" in text
    assert f"the checkpoint of step {len(rows)} is kept" in text
    assert "experiments.replay --workdir=" in text
    model = session.make_model(config, session.load_data(config))
    params, step = session.trained_params(config, model, tmp_path / "run")
    assert step == len(rows) > 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


KEPT = "What had been saved before is kept; the same command goes on from there.\n"


def test_an_anticipated_error_ends_a_command_with_code_2(monkeypatch, capsys):
    def fails():
        raise UserError("what went wrong.")

    def interrupted():
        raise KeyboardInterrupt

    def requeued():
        raise cli.Requeue("stopped by SIGTERM; saved.")

    def full():
        raise OSError(errno.ENOSPC, "No space left on device", "x/metrics.jsonl")

    monkeypatch.setattr(cli.command_line, "parse", lambda argv, define_flags: None)
    monkeypatch.setattr(cli.sys, "argv", ["command"])
    for main, code, err in (
        (fails, 2, "error: what went wrong.\n"),
        (
            interrupted,
            130,
            "\ninterrupted; run the same command again to go on from the last checkpoint.\n",
        ),
        (requeued, 75, "stopped by SIGTERM; saved.\n"),
        (
            full,
            2,
            "error: x/metrics.jsonl cannot be read or written: No space left on device. " + KEPT,
        ),
        (lambda: None, 0, ""),
        (lambda: 3, 3, ""),
    ):
        with pytest.raises(SystemExit) as end:
            cli.run(main, "doc")
        assert end.value.code == code
        assert capsys.readouterr().err == err


STUCK = """
import sys, threading, time
from absl import flags
from experiments import cli
cli.PATIENCE = 1
def forever():
    while True: time.sleep(1)
def main():
    if "thread" in sys.argv[0]:
        threading.Thread(target=forever).start()
    else:
        threading._shutdown = forever  # as a library's destructor, where no Python thread runs
        cli._end_now = lambda code: None
    if "unforeseen" in sys.argv[0]:
        raise RuntimeError("what nobody thought of")
    raise cli.UserError("the disk is full.")
sys.argv = [sys.argv[1]]
cli.define_common_flags()
cli.run(main, "doc")
"""


@pytest.mark.integration
@pytest.mark.parametrize(
    ("how", "code", "said"),
    [
        ("thread", 2, "error: the disk is full."),
        ("thread, unforeseen", 1, "RuntimeError: what nobody thought of"),
        ("end", -signal.SIGALRM, "error: the disk is full."),
    ],
)
def test_a_command_that_failed_ends_whatever_still_waits(how, code, said):
    """A thread that never returns, or an exit that does not, would hold the run's lock."""
    done = subprocess.run(
        [sys.executable, "-c", STUCK, how],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert done.stderr.splitlines()[-1] == said


# --- when a run saves
# -----------------------------------------------------------------------------------------------

BLOCKS = dict(
    train__num_steps=8,
    train__log_every=2,
    train__eval_every=2,
    train__checkpoint_every=8,
    train__keep_checkpoints=1,
)


@pytest.fixture
def elbos(monkeypatch, no_evaluation):
    """A run whose evaluations find these ELBOs, one after the other."""
    found = iter([-5.0, -3.0, -4.0, -6.0])
    stub_evaluations(monkeypatch, lambda state: next(found))


def saved_steps(folder):
    return sorted(int(path.name) for path in (folder / "checkpoints").glob("[0-9]*"))


@pytest.mark.integration
def test_the_best_checkpoint_is_saved_and_kept(tmp_path, elbos, capsys):
    config = small(**BLOCKS, train__keep_best=True)
    run_folder(tmp_path / "run", config)
    assert saved_steps(tmp_path / "run") == [4, 8]
    assert "note: the best checkpoint is chosen by the test split" in capsys.readouterr().err
    model = session.make_model(config, session.load_data(config))
    assert session.trained_params(config, model, tmp_path / "run", "best")[1] == 4
    assert "note: this is the checkpoint of step 4 of 8." in capsys.readouterr().err
    assert session.trained_params(config, model, tmp_path / "run")[1] == 8


@pytest.mark.cases(rest=None, slow=["60.0-steps2"])
@pytest.mark.integration
@pytest.mark.parametrize(("minutes", "steps"), [(0.0, [8]), (1e-9, [2, 4, 6, 8]), (60.0, [8])])
def test_a_run_saves_by_the_minute(tmp_path, elbos, minutes, steps):
    run_folder(
        tmp_path / "run",
        small(**BLOCKS | dict(train__keep_checkpoints=9), train__checkpoint_minutes=minutes),
    )
    assert saved_steps(tmp_path / "run") == steps


# --- streaming
# -------------------------------------------------------------------------------------------------


def fingerprint_step(state, batch):
    """A step that reports its batch: a sum that tells every batch of distinct rows, and their
    order, from the others.
    """
    value = (batch[:, 0] * jnp.arange(1.0, batch.shape[0] + 1)).sum()
    return state._replace(step=state.step + 1), {"loss": value, "grad_norm": jnp.ones(())}


def blank_state(seed=0):
    return vi.training.State(jnp.zeros((), jnp.int32), jax.random.key(seed), {}, (), ())


@pytest.mark.cases(rest=None, slow=["1", "13"])
@pytest.mark.integration
@pytest.mark.parametrize("batch_size", [1, 4, 13])
def test_every_loop_sees_the_same_batches(batch_size):
    """Ten examples, thirteen steps one at a time: compiled, stepwise, streamed, and streamed in
    blocks.
    """
    data = np.sqrt(np.arange(2.0, 12.0, dtype=np.float32))[:, None]

    def seen(make, data, blocks):
        state = blank_state()
        losses = []
        run = make(fingerprint_step, batch_size=batch_size)
        for length in blocks:
            state, info = run(state, data, length)
            losses.append(float(info.metrics["loss"]) * length)
            assert int(info.bad_step) == -1
        assert int(state.step) == sum(blocks)
        return losses

    want = seen(make_run, jnp.asarray(data), [1] * 13)
    assert len(set(np.round(want, 4))) > 5 or batch_size == 13, "the batches do not differ"
    np.testing.assert_allclose(
        seen(make_stepwise_run, jnp.asarray(data), [1] * 13), want, rtol=1e-5
    )
    np.testing.assert_allclose(seen(make_streaming_run, data, [1] * 13), want, rtol=1e-5)
    blocks = [2, 7, 4]
    sums = np.add.reduceat(want, [0, 2, 9])
    for make in (make_run, make_stepwise_run, make_streaming_run):
        np.testing.assert_allclose(
            seen(make, jnp.asarray(data) if make != make_streaming_run else data, blocks),
            sums,
            rtol=1e-5,
        )


@pytest.mark.parametrize("make", [make_run, make_stepwise_run, make_streaming_run])
def test_an_epoch_leaves_no_example_out(make):
    data = np.arange(10.0, dtype=np.float32)[:, None]
    seen = []

    def step(state, batch):
        jax.debug.callback(
            lambda rows: seen.extend(np.asarray(rows)[:, 0].astype(int).tolist()), batch
        )
        return fingerprint_step(state, batch)

    make(step, batch_size=4)(
        blank_state(), data if make == make_streaming_run else jnp.asarray(data), 3
    )
    jax.effects_barrier()
    assert set(seen) == set(range(10))
    assert len(seen) == 12


def test_streaming_stops_at_a_loss_that_is_not_finite():
    def step(state, batch):
        state, report = fingerprint_step(state, batch)
        return state, {**report, "loss": jnp.where(state.step == 4, jnp.nan, 0.0)}

    _, info = make_streaming_run(step, batch_size=4)(blank_state(), np.ones((10, 1), np.float32), 9)
    assert int(info.bad_step) == 3


@pytest.mark.integration
def test_a_streamed_run_has_the_metrics_of_one_on_the_device(tmp_path, no_evaluation):
    """20 steps that pass the end of an epoch of 13, by three loops."""
    few = dict(
        train__num_steps=20, train__log_every=4, train__eval_every=20, train__checkpoint_every=20
    )
    want = run_folder(tmp_path / "device", small(**few))
    for name, changes in (
        ("stream", dict(data__device_limit_mb=0)),
        ("stepwise", dict(train__loop="stepwise")),
    ):
        found = run_folder(tmp_path / name, small(**few, **changes))
        assert [row["step"] for row in found] == [4, 8, 12, 16, 20]
        for a, b in zip(found, want, strict=True):
            assert set(a) == set(b)
            for column in b:
                np.testing.assert_allclose(
                    a[column], b[column], rtol=1e-5, atol=1e-5, err_msg=column
                )


# --- input
# -------------------------------------------------------------------------------------------------


@pytest.mark.cases(rest="slow", default=["17"], integration=["256"])
@pytest.mark.parametrize("num_levels", [3, 17, 256])
def test_binarise_has_the_levels_as_its_mean(num_levels):
    levels = jnp.tile(jnp.arange(num_levels, dtype=jnp.uint8), (20_000, 1))
    x = np.asarray(build.binarise(jax.random.key(0), levels, num_levels))
    assert set(np.unique(x)) == {0.0, 1.0}
    assert x.dtype == np.float32
    assert_mean(x[:, 1:-1], np.arange(1, num_levels - 1) / (num_levels - 1))
    assert not x[:, 0].any(), "level 0 is always off"
    assert x[:, -1].all(), "the highest level is always on"


def test_binarise_draws_each_pixel_apart():
    x = np.asarray(build.binarise(jax.random.key(1), jnp.full((20_000, 3), 8, jnp.uint8), 17))
    assert_mean((x[:, 0] - 0.5) * (x[:, 1] - 0.5), 0.0)
    assert not np.array_equal(
        x, build.binarise(jax.random.key(2), jnp.full((20_000, 3), 8, jnp.uint8), 17)
    )
    halves = np.corrcoef(x[:10_000, 0], x[10_000:, 0])[0, 1]  # of the same words
    assert abs(halves) < 0.05
    assert build.binarise(jax.random.key(3), jnp.full((5, 2, 2), 16, jnp.uint8), 17).shape == (
        5,
        2,
        2,
    )


@pytest.mark.parametrize(
    ("changes", "num_levels", "want"),
    [
        (dict(data__binarisation="none"), 17, [0.0, 0.5, 1.0]),
        (dict(data__binarisation="none", model__likelihood="categorical"), 17, [0, 8, 16]),
        (dict(data__binarisation="none", model__likelihood="poisson"), 17, [0, 8, 16]),
        (dict(data__binarisation="static"), 2, [0.0, 1.0]),
        (dict(data__binarisation="dynamic"), 2, [0.0, 1.0]),
    ],
)
def test_prepare_gives_what_the_likelihood_wants(changes, num_levels, want):
    levels = jnp.asarray(np.linspace(0, num_levels - 1, len(want)), jnp.uint8)
    config = small(**changes)
    prepare = build.prepare(config, build.units(config, num_levels))
    x = prepare(jax.random.key(0), levels)
    assert x.tolist() == want
    is_whole = changes.get("model__likelihood") in ("categorical", "poisson")
    assert jnp.issubdtype(x.dtype, jnp.integer) == is_whole


@pytest.mark.integration
def test_the_evaluation_set_is_binarised_once():
    config = small()
    dataset = session.load_data(config)
    x, labels = session.evaluation_set(config, dataset, "test")
    again, _ = session.evaluation_set(config, dataset, "test")
    assert np.array_equal(x, again)
    assert set(np.unique(x)) == {0.0, 1.0}
    assert x.shape == (360, 8, 8)
    assert labels.shape == (360,)
    other, _ = session.evaluation_set(small(seed=5), dataset, "test")
    assert np.array_equal(x, other), "it does not depend on the seed of the run"
    other, _ = session.evaluation_set(small(data__static_seed=1), dataset, "test")
    assert not np.array_equal(x, other)
    assert len(session.evaluation_set(config, dataset, "validation")[0]) == 180


def test_an_evaluation_set_wants_two_examples():
    config = small(data__test="all[1437:1438]", data__validation="")
    dataset = session.load_data(config)
    with pytest.raises(UserError, match="has 1 example"):
        session.evaluation_set(config, dataset, "test")
    with pytest.raises(UserError, match=r"config\.data\.validation is empty"):
        session.evaluation_set(config, dataset, "validation")


# --- the record of a run
# --------------------------------------------------------------------------------------------


def test_metrics_are_cut_to_where_a_run_resumes(tmp_path):
    rows = [{"step": step, "train/elbo": -0.1 * step, "alarm": "x"} for step in (10, 20, 30)]
    log = metrics.MetricsLog(tmp_path, from_step=0)
    for row in rows:
        log.write(row, {"seconds": 1.0})
    log.close()
    path = tmp_path / metrics.METRICS
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"step": 40, "train/el')  # killed while it wrote
    assert [row["step"] for row in metrics.read_rows(path)] == [10, 20, 30]
    metrics.MetricsLog(tmp_path, from_step=30).close()
    assert path.read_bytes() == whole
    log = metrics.MetricsLog(tmp_path, from_step=20)
    assert [row["step"] for row in metrics.read_rows(tmp_path / metrics.TIMING)] == [10, 20]
    log.write(rows[2], {"seconds": 9.0})
    log.close()
    assert path.read_bytes() == whole
    metrics.MetricsLog(tmp_path, from_step=0).close()
    assert path.read_bytes() == b""
    assert metrics.read_rows(tmp_path / "none.jsonl") == []


def test_numbers_survive_being_cut_and_written_again(tmp_path):
    values = np.random.default_rng(0).standard_normal(50).tolist() + [1e-310, 1e300, 0.1 + 0.2]
    path = tmp_path / metrics.METRICS
    path.write_text(
        "".join(json.dumps({"step": i, "x": value}) + "\n" for i, value in enumerate(values))
    )
    before = path.read_bytes()
    metrics.MetricsLog(tmp_path, from_step=len(values)).close()
    assert path.read_bytes() == before


def test_default_folder_is_a_function_of_the_config():
    folder = default_folder(small())
    assert folder.parent.name == "runs"
    assert folder == default_folder(small())
    assert folder == default_folder(from_plain(to_plain(small())))
    assert folder != default_folder(small(seed=1))
    same = dict(
        train__keep_best=True,
        train__keep_checkpoints=1,
        train__checkpoint_minutes=5.0,
        train__checkpoint_every=20,
    )
    assert folder == default_folder(small(**same)), "these change no number of a run"
    # Folders of runs that people have are found by this name; a change orphans them, so say it in
    # the CHANGELOG.
    golden = from_plain({"name": "x", "a": {"b": [1, 2], "c": 0.1}})
    assert default_folder(golden).as_posix() == "runs/x-c77d56b8"


def test_a_run_that_never_had_its_data_gives_way(tmp_path):
    """As when the data were not found, and the second try names where they are."""
    folder = tmp_path / "run"
    assert open_folder(folder, small(), overwrite=False) is False
    assert open_folder(folder, small(seed=1), overwrite=False) is False
    assert read_config(folder).seed == 1
    # a start that was refused after it had read its data: nothing is lost
    files.write_json(folder / DATA, {"fingerprint": "x"})
    (folder / metrics.METRICS).touch()
    (folder / "tensorboard").mkdir()
    assert open_folder(folder, small(seed=1), overwrite=False) is False
    assert not (folder / DATA).exists()
    files.write_json(folder / DATA, {"fingerprint": "x"})
    (folder / metrics.METRICS).write_text('{"step": 10}\n')
    assert open_folder(folder, small(seed=1), overwrite=False) is True
    with pytest.raises(UserError, match="seed was 1 and is 0"):
        open_folder(folder, small(), overwrite=False)
    assert open_folder(folder, small(), overwrite=True) is False
    assert not (folder / DATA).exists()


def test_a_start_that_was_killed_as_it_wrote_its_config_gives_way(tmp_path):
    (tmp_path / ".config.json.123.partial").write_text('{"fo')
    assert open_folder(tmp_path, small(), overwrite=False) is False
    (tmp_path / ".environment.json.124.partial").write_text("{")
    assert open_folder(tmp_path, small(seed=1), overwrite=False) is False
    (tmp_path / "other.partial").write_text("x")
    (tmp_path / "config.json").unlink()
    with pytest.raises(UserError, match="is not empty and holds no run"):
        open_folder(tmp_path, small(), overwrite=False)


def test_a_lock_that_finds_no_room_names_its_folder(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(UserError, match=f"--workdir={tmp_path} cannot be written .No space left"):
        lock.locked(tmp_path).__enter__()


def test_a_run_that_has_lost_its_record_of_the_data_is_not_begun_anew(tmp_path):
    folder = tmp_path / "run"
    open_folder(folder, small(), overwrite=False)
    (folder / "checkpoints" / "10").mkdir(parents=True)
    with pytest.raises(UserError, match="seed was 0 and is 1"):
        open_folder(folder, small(seed=1), overwrite=False)
    assert open_folder(folder, small(), overwrite=False) is True
    with pytest.raises(UserError, match=r"run has checkpoints and no data\.json"):
        check_data(folder, types.SimpleNamespace(name="digits", source="here", fingerprint="aa"))


def test_a_run_goes_on_with_other_ways_to_save(tmp_path, capsys):
    folder = tmp_path / "run"
    open_folder(folder, small(), overwrite=False)
    files.write_json(folder / DATA, {"fingerprint": "x"})
    (folder / metrics.METRICS).write_text('{"step": 10}\n')
    assert open_folder(folder, small(train__keep_best=True), overwrite=False) is True
    assert capsys.readouterr().err == "note: train.keep_best was False and is True, from here on.\n"
    assert read_config(folder).train.keep_best is True
    with pytest.raises(UserError, match=r"train\.ema was 0\.998 and is 0\.5\. Name another"):
        open_folder(folder, small(train__ema=0.5, train__checkpoint_every=20), overwrite=False)


def test_deleting_a_run_keeps_its_lock(tmp_path):
    """Else the folder could be locked a second time while a run is being made there."""
    folder = tmp_path / "run"
    with lock.locked(folder):
        open_folder(folder, small(), overwrite=False)
        (folder / "figures").mkdir()
        open_folder(folder, small(seed=1), overwrite=True)
        assert {path.name for path in folder.iterdir()} == {
            "config.json",
            "environment.json",
            lock.LOCK,
        }
        with pytest.raises(
            UserError, match=f"a run is going on in --workdir={folder} .process {os.getpid()} on "
        ):
            lock.locked(folder).__enter__()
    with lock.locked(folder):
        pass


def test_a_folder_that_takes_no_locks_says_so(tmp_path, monkeypatch, capsys):
    def no_locks(descriptor):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock, "_take", no_locks)
    with lock.locked(tmp_path / "run"):
        pass
    note = (
        f"note: {tmp_path / 'run'} takes no locks (No locks available): nothing keeps a "
        "second run out of it.\n"
    )
    assert capsys.readouterr().err == note


def test_other_data_are_noticed(tmp_path):
    dataset = types.SimpleNamespace(name="digits", source="here", fingerprint="aa")
    check_data(tmp_path, dataset)
    check_data(tmp_path, dataset)
    moved = types.SimpleNamespace(name="digits", source="there", fingerprint="aa")
    check_data(tmp_path, moved)
    other = types.SimpleNamespace(name="digits", source="there", fingerprint="bb")
    with pytest.raises(UserError, match=r"the data have changed .* \(here then, there now\)"):
        check_data(tmp_path, other)
    for content in ("", "[1, 2]", '{"name'):
        (tmp_path / DATA).write_text(content)
        with pytest.raises(UserError, match=r"data\.json cannot be read"):
            check_data(tmp_path, dataset)


# --- measures
# -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small_model():
    """A model at its start, with 23 examples."""
    built = session.build_all(small())
    return built, built.model.init(jax.random.key(3)), built.x[:23]


@pytest.mark.cases(rest=None, slow=["100"])
@pytest.mark.integration
@pytest.mark.parametrize("batch_size", [5, 100])
def test_log_evidence_counts_every_example_once(small_model, batch_size):
    built, params, x = small_model
    key = jax.random.key(4)

    def sampled(size):
        make = evidence.make_log_evidence(built.model, num_samples=30, most=15, batch_size=size)
        return make(key, params, x)

    found = sampled(batch_size)
    whole = sampled(23)
    assert found.log_p.shape == (23,)
    np.testing.assert_allclose(found.log_p, whole.log_p, rtol=1e-5)
    np.testing.assert_allclose(found.k_hat, whole.k_hat, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.stderr, whole.stderr, rtol=1e-3, atol=1e-4)
    assert len(np.unique(whole.log_p)) == 23
    assert np.isfinite(whole.log_p).all()


def test_evidence_is_summarised_with_its_reliability():
    log_p = np.array([-1.0, -2.0, -3.0])
    k_hat = np.array([0.5, 0.9, -np.inf])
    sampled = evidence.Evidence(log_p, k_hat, np.full(3, 0.1), log_p - 0.5, log_p + 0.25)
    found = evidence.summarise(sampled, 50, 4.0)
    assert found["log_evidence"]["mean"] == -2.0
    assert found["reliable_share"] == 2 / 3
    assert found["bits_per_dimension"] == 0.5
    assert "reliable_share" not in evidence.summarise(sampled, 24, None)
    assert "67 %" in evidence.rows(found)[0].note
    assert "bracket" not in found  # which --bracket adds: annealing
    assert found["evidence_bounds"] == {
        "lower": -2.5,
        "upper": -1.75,
        "median_width": 0.75,
        "largest_width": 0.75,
        "largest_k_hat": 0.9,
    }
    # the upper bound is said where the weights can be trusted
    assert len(evidence.rows(found)) == 2
    trusted = evidence.summarise(sampled._replace(k_hat=np.full(3, 0.5)), 50, None)
    assert "0.750, k-hat <= 0.50" in evidence.rows(trusted)[1].note


@pytest.mark.integration
def test_portions_of_samples_of_any_size_are_one_program(small_model, monkeypatch, caplog):
    """20 chunks, a few more at each call, in batches of 8 examples; of parameters that lie on a
    device, as those of a checkpoint do.
    """
    built, params, x = small_model
    params = jax.device_put(params, jax.devices()[0])
    traced = []
    sizes = []
    real = evidence.log_joint
    took = evidence.Portions.took
    monkeypatch.setattr(evidence, "log_joint", lambda *args: (traced.append(1), real(*args))[1])
    monkeypatch.setattr(
        evidence.Portions, "took", lambda self, *args: (sizes.append(args[0]), took(self, *args))[1]
    )
    make = evidence.make_log_evidence(built.model, num_samples=60, most=3, batch_size=8)
    with jax.log_compiles():
        make(jax.random.key(4), params, x)
    assert len(set(sizes)) > 2
    assert len(traced) == 1
    compiled = [each for each in caplog.messages if each.startswith("Compiling jit(add_chunks)")]
    assert len(compiled) == 1


@pytest.mark.integration
def test_measures_are_those_of_each_example(small_model):
    built, params, x = small_model
    found = built.meter.measure(jax.random.key(5), params, x)
    assert found.summary["num_examples"] == 23
    assert found.summary["num_latents"] == 3
    kl = found.arrays["kl_per_dimension"]["z"]
    np.testing.assert_allclose(kl.sum(), found.summary["kl"]["mean"], rtol=1e-5)
    means = np.stack([built.model.densities.guide(params, each).mean for each in x])
    latent_mean = found.arrays["latent_mean"]["z"]
    np.testing.assert_allclose(latent_mean, means, rtol=1e-4, atol=1e-5)
    active = found.arrays["active"]["z"]
    assert active.tolist() == (means.var(0) > built.config.eval.active_threshold).tolist()
    assert found.summary["active_units"] == active.sum()
    elbo = found.summary["log_lik"]["mean"] - found.summary["kl"]["mean"]
    np.testing.assert_allclose(found.summary["elbo"]["mean"], elbo, rtol=1e-5)
    by_four = session.build_all(small(eval__batch_size=4))
    again = by_four.meter.measure(jax.random.key(5), params, x)
    numbers = [
        {k: v for k, v in each.summary.items() if isinstance(v, dict)} for each in (found, again)
    ]
    assert tree_allclose(*numbers, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("num_samples", "most", "want"),
    [(5000, 100, 100), (7, 100, 7), (101, 100, 1), (150, 100, 75), (1, 5, 1)],
)
def test_chunks_divide(num_samples, most, want):
    assert evidence.chunk_for(num_samples, most) == want


def test_mean_stderr_is_numpys():
    values = np.random.default_rng(0).standard_normal(10)
    assert mean_stderr(values) == {
        "mean": values.mean(),
        "stderr": values.std(ddof=1) / 10**0.5,
    }
