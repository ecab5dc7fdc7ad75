"""Blocks of steps in parts: how long a run that is asked to stop goes on, and that nobody can tell
from its record that it did.
"""

import json
import os
import signal
import threading
import time
import types

import jax
import jax.numpy as jnp
import pytest
from command_helpers import small, stub_evaluations
from helpers import tree_equal

from experiments import build, cli
from experiments.cli import UserError
from experiments.evals import closing
from experiments.run import metrics, parts, processes, replicas, session, single
from experiments.run.checkpoints import Checkpoints
from experiments.run.parts import Parts
from experiments.run.stopping import Stop
from experiments.sweep import configs as sweep_configs
from vi_jax.training import BlockInfo, Totals

pytestmark = pytest.mark.usefixtures("no_key_check")

TOTALS = Totals(
    {"loss": jnp.float32(1 / 3), "grad_norm": jnp.float32(0)},
    jnp.int32(1),
    jnp.int32(-1),
    jnp.int32(4),
)
FIELDS = dict(
    train__num_steps=5, train__log_every=3, train__eval_every=3, train__checkpoint_every=3
)


def sizes_of(
    monkeypatch,
    seconds_a_step,
    num_steps,
    *,
    asks=lambda: False,
    report=None,
    bad_at=-1,
    calls=1,
):
    """The sizes of the parts of a block whose steps take so many seconds (or a function of their
    number) of a clock of the test's own; the first step compiles.
    """
    clock = [0.0]
    sizes = []
    monkeypatch.setattr(parts.time, "perf_counter", lambda: clock[0])

    def run(state, data, size, since):
        spent = seconds_a_step(size) if callable(seconds_a_step) else seconds_a_step * size
        clock[0] += spent + (100.0 if not sizes else 0.0)
        sizes.append(size)
        bad = bad_at if 0 <= bad_at < state.step + size else -1
        info = BlockInfo({}, bad, TOTALS._replace(steps=size + (since.steps if since else 0)))
        return types.SimpleNamespace(step=state.step + size), info

    stepped = Parts(run, asks, report)
    for _ in range(calls):
        _, info = stepped(types.SimpleNamespace(step=0), None, num_steps)
    return sizes, info


@pytest.mark.parametrize(
    ("seconds", "want"),
    [
        (0.001, [1, 1, 2, 4, 8, 16, 32, 64, 72, 200]),
        (0.125, [1, 1, 2, 4, 8, 16, 32, 40, 40, 40, 16, *[40] * 5]),
        (7.0, [1] * 400),
    ],
)
def test_parts_double_up_to_five_seconds_or_a_step(monkeypatch, seconds, want):
    sizes, info = sizes_of(monkeypatch, seconds, 200, calls=2)
    assert sizes == want
    assert info.totals.steps == 200


def test_a_block_ends_between_parts_where_it_is_asked_to(monkeypatch):
    asks = iter([False, False, True])
    assert sizes_of(monkeypatch, 0.125, 200, asks=lambda: next(asks))[0] == [1, 1, 2]
    assert sizes_of(monkeypatch, 0.125, 200, bad_at=20)[0] == [1, 1, 2, 4, 8, 16]


def test_a_part_that_was_too_fast_for_its_size_is_followed_by_no_more_than_twice_as_many(
    monkeypatch,
):
    """The second step alone is quick: what comes after it is not taken to be."""
    seconds = iter([0.0, 1e-6, *[7.0] * 50])
    assert sizes_of(monkeypatch, lambda size: next(seconds), 20)[0] == [1, 1, 2, *[1] * 16]


def test_each_part_is_reported_the_first_without_its_seconds(monkeypatch):
    seen = []
    sizes_of(monkeypatch, 7.0, 3, report=lambda *args: seen.append(args), calls=2)
    assert seen == [
        (1, 1, None, {}, False),
        (2, 1, 7.0, {}, False),
        (3, 1, 7.0, {}, True),
        (1, 1, 7.0, {}, False),
        (2, 1, 7.0, {}, False),
        (3, 1, 7.0, {}, True),
    ]


def test_processes_go_by_the_slowest(monkeypatch):
    monkeypatch.setattr(processes, "most", lambda here: 3 * here)
    assert sizes_of(monkeypatch, 0.125, 40)[0] == [1, 1, 2, 4, 8, 13, 11]


def test_sums_survive_being_written():
    back = parts.from_numbers(json.loads(json.dumps(parts.as_numbers(TOTALS))))
    assert tree_equal(back, TOTALS)
    assert [leaf.dtype for leaf in jax.tree.leaves(back)] == [
        leaf.dtype for leaf in jax.tree.leaves(TOTALS)
    ]


class StopAt(Stop):
    """Is asked to stop at a number of its asking."""

    def __init__(self, number):
        super().__init__()
        self.left = number

    def asked(self):
        self.left -= 1
        return self.left < 0


@pytest.fixture
def quick(monkeypatch):
    """Parts of one step, evaluations that are a number of the parameters, no closing figures."""
    monkeypatch.setattr(parts, "SECONDS", 1e-9)
    monkeypatch.setattr(closing, "finish", lambda *args: {})
    stub_evaluations(
        monkeypatch,
        lambda state: float(sum(jnp.abs(leaf).sum() for leaf in jax.tree.leaves(state.params))),
    )


def last_state(folder, config):
    like = session.start_state(config, session.make_model(config, session.load_data(config)))
    with Checkpoints(folder / "checkpoints", keep=3) as saved:
        state = saved.restore_latest(like)
    return state._replace(key=jax.random.key_data(state.key))


@pytest.mark.cases(rest=None, slow=["streamed"])
@pytest.mark.integration
@pytest.mark.parametrize(
    "fields",
    [
        {},
        pytest.param(dict(train__loop="stepwise", train__keep_best=True), marks=pytest.mark.slow),
        dict(data__device_limit_mb=0),
    ],
    ids=["compiled", "stepwise", "streamed"],
)
def test_a_run_that_is_stopped_anywhere_ends_as_the_unbroken_one(
    quick, tmp_path, monkeypatch, fields
):
    """After each of its parts, before and after each of its evaluations, and again and again."""
    config = small(**FIELDS, **fields)
    for name in ("whole", "run"):
        (tmp_path / name).mkdir()
    with monkeypatch.context() as unbroken:
        unbroken.setattr(parts, "SECONDS", 1e9)
        single.train(config, tmp_path / "whole", resumed=False)
    said = []
    for turn in range(20):
        try:
            single.train(
                config,
                tmp_path / "run",
                resumed=turn > 0,
                stop=StopAt(int(said[-1:] == said[-2:-1] != [])),
            )
        except cli.Requeue as stopped:
            said.append(str(stopped))
        else:
            break
    else:
        pytest.fail(f"it does not get on: {said}")
    steps = [int(text.split("step ")[1].split()[0]) for text in said]
    # within a block, before an evaluation, before that at the end
    assert set(steps) >= {1, 2, 3, 5}
    assert (tmp_path / "run" / metrics.METRICS).read_bytes() == (
        tmp_path / "whole" / metrics.METRICS
    ).read_bytes()
    assert tree_equal(last_state(tmp_path / "run", config), last_state(tmp_path / "whole", config))


def files_of(folder):
    """{file: its number and times} of a folder; what is written anew has others."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}


@pytest.mark.integration
def test_the_only_checkpoint_is_not_written_anew(quick, tmp_path):
    """A run that was stopped before its first evaluation, whose ELBO is then the best: killed while
    that is saved, it would have nothing left. Stopped there again, the same.
    """
    config = small(**FIELDS, train__keep_best=True, train__keep_checkpoints=1)
    only = tmp_path / "checkpoints" / "3"
    with pytest.raises(cli.Requeue, match="step 3 of 5"):
        single.train(config, tmp_path, resumed=False, stop=StopAt(2))
    before = files_of(only)
    with pytest.raises(cli.Requeue, match="step 3 of 5"):
        single.train(config, tmp_path, resumed=True, stop=StopAt(0))
    assert files_of(only) == before
    with pytest.raises(cli.Requeue, match="step 4 of 5"):
        single.train(config, tmp_path, resumed=True, stop=StopAt(1))
    after = files_of(only)
    assert {name: after.get(name) for name in before} == before
    assert set(after) - set(before) == {"later.json"}
    model = session.make_model(config, session.load_data(config))
    assert session.trained_params(config, model, tmp_path, "best")[1] == 3


@pytest.mark.slow
def test_a_sweep_that_is_stopped_anywhere_ends_as_the_unbroken_one(quick, tmp_path, monkeypatch):
    # two of the four stop by themselves
    config = small(**FIELDS, replicas=2, sweep__learning_rates=(1e-3, 1e9))
    monkeypatch.setattr(replicas, "finish", lambda *args: [])
    for name in ("whole", "run"):
        (tmp_path / name).mkdir()
    with monkeypatch.context() as unbroken:
        unbroken.setattr(parts, "SECONDS", 1e9)
        replicas.train(config, tmp_path / "whole", stop=Stop())
    for turn in range(20):
        try:
            replicas.train(config, tmp_path / "run", stop=StopAt(turn % 2))
        except cli.Requeue:
            continue
        break
    else:
        pytest.fail("it does not get on")
    for which in range(2):
        name = f"replica_{which}"
        assert (tmp_path / "run" / name / metrics.METRICS).read_bytes() == (
            tmp_path / "whole" / name / metrics.METRICS
        ).read_bytes()
        one = sweep_configs(config)[which]
        assert tree_equal(
            last_state(tmp_path / "run" / name, one), last_state(tmp_path / "whole" / name, one)
        )


@pytest.mark.integration
def test_sums_that_are_not_those_that_were_saved_are_damage(quick, tmp_path):
    config = small(**FIELDS)
    (tmp_path / "run").mkdir()
    with pytest.raises(cli.Requeue, match="step 2 of 5 is saved"):
        single.train(config, tmp_path / "run", resumed=False, stop=StopAt(1))
    [path] = [
        path
        for path in (tmp_path / "run" / "checkpoints" / "2").rglob("*")
        if path.is_file() and b"sums.loss" in path.read_bytes()
    ]
    found = json.loads(path.read_text())
    found["custom_metadata"]["block"]["sums.loss"][1] += 1e-3
    path.write_text(json.dumps(found))
    with pytest.raises(UserError, match="no checkpoint in"):
        single.train(config, tmp_path / "run", resumed=True)


@pytest.mark.integration
def test_sigterm_is_answered_within_a_part_of_a_slow_block(quick, tmp_path, monkeypatch):
    """A block of 400 steps of 50 ms, 20 s: asked after 1 s, it takes few steps more. Counted, since
    a machine may be busy.
    """
    real = build.step
    taken = []
    at_signal = []

    def slow(*args, **options):
        step = real(*args, **options)

        def waits(state, batch):
            number = jax.pure_callback(
                lambda n: (time.sleep(0.05), taken.append(n), n)[2],
                jax.ShapeDtypeStruct((), jnp.int32),
                state.step,
            )
            return step(state._replace(step=number), batch)

        return waits

    monkeypatch.setattr(build, "step", slow)
    monkeypatch.setattr(parts, "SECONDS", 0.3)
    many = dict(
        train__num_steps=400,
        train__log_every=400,
        train__eval_every=400,
        train__checkpoint_every=400,
    )
    (tmp_path / "run").mkdir()
    stop = Stop()

    def send_when_it_trains():
        while not (tmp_path / "run" / metrics.METRICS).exists():
            time.sleep(0.05)
        time.sleep(1.0)
        at_signal.append(len(taken))
        os.kill(os.getpid(), signal.SIGTERM)

    sender = threading.Thread(target=send_when_it_trains)
    with stop.listening():
        sender.start()
        with pytest.raises(cli.Requeue, match=r"stopped by SIGTERM; step \d+ of 400 is saved"):
            single.train(small(**many), tmp_path / "run", resumed=False, stop=stop)
    sender.join()
    assert len(taken) - at_signal[0] <= 20
