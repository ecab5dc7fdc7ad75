"""Batches from the host: in groups of steps, bounded in bytes, with the draws of any loop and any
kind of key.
"""

import mmap
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tree_equal

from experiments.run import streaming
from experiments.run.mapped import make_announce
from experiments.run.streaming import AHEAD, make_streaming_run
from vi_jax.training import State, batch_rows, make_run, shuffle

DATA = np.sqrt(np.arange(2.0, 12.0, dtype=np.float32))[:, None]


class Asked:
    """Data [N, 1] that note how many rows were asked for at a time."""

    def __init__(self, data):
        self.data = data
        self.rows = []

    def __len__(self):
        return len(self.data)

    def __getitem__(self, rows):
        self.rows.append(len(rows))
        return self.data[rows]


def state_of(**options):
    return State(
        jnp.zeros((), jnp.int32), jax.random.key(0, **options), {"seen": jnp.zeros(())}, (), ()
    )


def step(state, batch):
    """Draws, and mixes what it sees in, so that the order of steps shows."""
    noise = jax.random.uniform(jax.random.fold_in(state.key, state.step))
    seen = (
        0.5 * state.params["seen"] + noise * (batch[:, 0] * jnp.arange(1.0, len(batch) + 1)).sum()
    )
    return state._replace(step=state.step + 1, params={"seen": seen}), {
        "loss": seen,
        "grad_norm": jnp.ones(()),
    }


@pytest.mark.cases(rest="slow", default=["rbg-3"], integration=["threefry2x32-32"])
@pytest.mark.parametrize("most_steps", [1, 3, 32])
@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_groups_of_any_size_are_the_run_on_the_device(most_steps, impl):
    want, wanted = make_run(step, batch_size=4)(state_of(impl=impl), jnp.asarray(DATA), 13)
    data = Asked(DATA)
    found, info = make_streaming_run(step, batch_size=4, most_steps=most_steps)(
        state_of(impl=impl), data, 13
    )
    assert int(found.step) == 13
    np.testing.assert_allclose(found.params["seen"], want.params["seen"], rtol=1e-6)
    np.testing.assert_allclose(info.metrics["loss"], wanted.metrics["loss"], rtol=1e-6)
    assert sum(data.rows) == 13 * 4 + 1  # one row to learn the shape
    assert max(data.rows) == 4 * min(most_steps, 13)


def test_a_stream_in_blocks_is_bitwise_the_whole():
    """Blocks of whole groups, as checkpoints leave them."""
    run = make_streaming_run(step, batch_size=4, most_steps=2)
    whole = run(state_of(), DATA, 8)[0]
    state = state_of()
    for block in (2, 4, 2):
        state = run(state, DATA, block)[0]
    assert tree_equal(state.params, whole.params)


def test_a_group_is_bounded_in_bytes(monkeypatch):
    monkeypatch.setattr(streaming, "MOST_BYTES", 2 * 4 * DATA[:1].nbytes)
    data = Asked(DATA)
    make_streaming_run(step, batch_size=4)(state_of(), data, 9)
    assert data.rows == [1, 8, 8, 8, 8, 4]


def test_no_more_is_gathered_than_the_look_ahead():
    """A device slower than the host: when a step begins, only the groups that the docstring allows
    have been asked for.
    """
    data = Asked(DATA)
    asked = []

    def slow(state, batch):
        jax.debug.callback(
            lambda number: (time.sleep(0.05), asked.append(len(data.rows) - 1 - int(number))),
            state.step,
        )
        return step(state, batch)

    with jax.debug_key_reuse(False):  # a callback makes the checker lose sight of the keys
        make_streaming_run(slow, batch_size=4, most_steps=1)(state_of(), data, 12)
    jax.effects_barrier()
    assert len(asked) == 12
    assert max(asked) <= AHEAD + 3


@pytest.mark.parametrize("sizes", [dict(batch_size=0), dict(batch_size=1, most_steps=0)])
def test_sizes_that_are_none_are_refused(sizes):
    with pytest.raises(ValueError, match="at least 1; got"):
        partial(make_streaming_run, step)(**sizes)


@pytest.fixture
def told(monkeypatch):
    """Every advice that a memory map of this test is given, as (option, start, length)."""
    advice = []

    class Told(mmap.mmap):
        def madvise(self, option, start=0, length=None):
            advice.append((option, start, length))
            super().madvise(option, start, *([] if length is None else [length]))

    monkeypatch.setattr(mmap, "mmap", Told)
    return advice


@pytest.mark.skipif(not hasattr(mmap, "MADV_WILLNEED"), reason="this system takes no advice")
def test_a_file_is_told_of_each_row_before_it_is_read(tmp_path, told):
    """Rows of 3,000 bytes, of which some lie on two pages; past the end of a block and of an epoch
    too; the run is the same.
    """
    wide = np.repeat(DATA, 750, axis=1)
    np.save(tmp_path / "wide.npy", wide)
    mapped = np.load(tmp_path / "wide.npy", mmap_mode="r")
    rows = Asked(wide)
    run, want = (make_streaming_run(step, batch_size=4, most_steps=2) for _ in range(2))
    state = state_of()
    plain = state_of()
    for block in (3, 4):
        state = run(state, mapped, block)[0]
        plain = want(plain, rows, block)[0]
    assert tree_equal(state.params, plain.params)
    offset = np.load(tmp_path / "wide.npy", mmap_mode="r").offset
    assert told[0] == (mmap.MADV_RANDOM, 0, None)
    # in the order of steps, once each: the 7 of the run, and the groups ahead of the last one
    needed = [each for each in told if each[0] == mmap.MADV_WILLNEED]
    assert len(needed) == 4 * (5 + (AHEAD + streaming.ANNOUNCED) * 2)
    order = [np.asarray(shuffle(state_of().key, jnp.int32(epoch), 10)) for epoch in range(3)]
    for number in range(7):
        batch = np.asarray(batch_rows(order[number // 3], number % 3, 4))
        for row, (_, start, length) in zip(batch, needed[4 * number :], strict=False):
            begin = offset + 3_000 * int(row)
            assert start % mmap.PAGESIZE == 0
            assert start <= begin < start + mmap.PAGESIZE
            assert start + length == begin + 3_000


def test_what_is_no_map_of_whole_rows_is_told_nothing(tmp_path):
    np.save(tmp_path / "wide.npy", np.zeros((8, 3)))
    mapped = np.load(tmp_path / "wide.npy", mmap_mode="r")
    assert make_announce(mapped) is not None
    assert make_announce(mapped[2:, :2]) is not None
    for other in (
        mapped[:, ::2],
        mapped[::-1],
        mapped[:0],
        np.zeros((8, 3)),
        np.asarray(mapped),
        [[1.0]],
    ):
        assert make_announce(other) is None


def tree_step(state, batch):
    return step(state, batch["row"] + batch["label"][:, None])


def test_examples_may_be_a_pytree():
    labels = (np.arange(10) % 3).astype(np.int32)
    flat = DATA + labels[:, None]
    want, wanted = make_streaming_run(step, batch_size=4, most_steps=3)(state_of(), flat, 7)
    tree = {"row": Asked(DATA), "label": labels}
    found, info = make_streaming_run(tree_step, batch_size=4, most_steps=3)(state_of(), tree, 7)
    np.testing.assert_allclose(found.params["seen"], want.params["seen"], rtol=1e-6)
    np.testing.assert_allclose(info.metrics["loss"], wanted.metrics["loss"], rtol=1e-6)
    with pytest.raises(ValueError, match=r"one length; got \[9, 10\]"):
        make_streaming_run(tree_step, batch_size=4)(state_of(), {**tree, "label": labels[:9]}, 1)
