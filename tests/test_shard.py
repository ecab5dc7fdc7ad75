"""One device = eight host devices = two processes of four, and the tables that say where arrays
lie.
"""

import json
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P

import vi_jax as vi

PROGRAM = Path(__file__).with_name("shard_program.py")


def run_program(devices, *args):
    """The JSON that the program prints in a process of its own, with so many host devices."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    env = {
        **os.environ,
        "PYTHONPATH": str(PROGRAM.parents[1]),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": flags,
    }
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *map(str, args)],
        capture_output=True,
        text=True,
        timeout=300,
        env=env,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="module")
def one():
    return run_program(1)


@pytest.fixture(scope="module")
def eight():
    return run_program(8)


@pytest.fixture(scope="module")
def two_processes():
    coordinator = f"127.0.0.1:{free_port()}"
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda number: run_program(4, coordinator, 2, number), range(2)))


@pytest.mark.integration
@pytest.mark.parametrize("layout", ["data", "fsdp", "explicit", "stepwise", "streaming"])
def test_eight_devices_have_the_losses_of_one(one, eight, layout):
    assert eight["devices"] == 8
    np.testing.assert_allclose(eight[layout], one["vae"], rtol=1e-5)
    assert one["vae"][-1] < one["vae"][0] - 1.0  # it trains


@pytest.mark.integration
@pytest.mark.parametrize("layout", ["data", "fsdp", "streaming"])
def test_two_processes_have_the_losses_of_one(one, two_processes, layout):
    for process in two_processes:
        assert process["devices"] == 8
        np.testing.assert_allclose(process[layout], one["vae"], rtol=1e-5)
    assert two_processes[0] == two_processes[1]
    assert two_processes[1]["from the first"] == {"process": 0}


@pytest.mark.integration
def test_examples_that_are_pytrees_lie_over_devices(one, eight, two_processes):
    for each in (eight, *two_processes):
        for name in ("tree", "tree, streaming"):
            np.testing.assert_allclose(each[name], one["tree"], rtol=1e-5)


@pytest.mark.integration
def test_starts_over_devices_come_to_what_they_do_on_one(one, eight, two_processes):
    for fitted in (*eight["fit"], *two_processes[0]["fit"]):
        for found, wanted in zip(fitted, one["fit"], strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    target = vi.targets.from_log_density(lambda u: -jnp.sum(u**2), 2)
    with pytest.raises(ValueError, match="3 starts do not lie evenly over 2 devices"):
        vi.fit(
            jax.random.key(0), target, num_starts=3, mesh=AbstractMesh((2, 1), ("data", "model"))
        )


@pytest.mark.integration
def test_parameters_and_all_that_is_kept_of_them_are_cut_when_asked(eight, two_processes):
    assert eight["data slices"] == [1]
    # every kernel, its average and its two moments
    assert eight["fsdp slices"] == two_processes[0]["fsdp slices"] == [4]
    assert eight["explicit slices"] == [2]


@pytest.mark.integration
def test_data_parallel_steps_reduce_gradients_and_nothing_else(eight):
    assert set(eight["data collectives"]) == {"all-reduce"}
    assert set(eight["fsdp collectives"]) <= {"all-reduce", "all-gather", "reduce-scatter"}


@pytest.mark.integration
@pytest.mark.parametrize("devices", ["2", "8"])
def test_the_bound_is_right_on_any_split_of_its_draws(eight, devices):
    wrapped, mapped = eight["draws"][devices]
    for whole, split in (wrapped, mapped):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), whole, split
        )
    assert np.isfinite(mapped[0][0])


def test_a_mesh_says_what_does_not_fit():
    assert dict(vi.shard.make_mesh().shape) == {"data": 1, "model": 1}
    for sizes in ((2, 1), (-1, -1), (0, 1), (-1, 3), (-2, 1)):
        with pytest.raises(
            ValueError, match="does not fit 1 device: the sizes have to be positive"
        ):
            vi.shard.make_mesh(*sizes)
    with pytest.raises(ValueError, match="names no axis of the mesh, which has data, model"):
        vi.shard.make_layout(vi.shard.make_mesh(), {"out": "modle"})
    with pytest.raises(ValueError, match="no axis 'draws'"):
        vi.shard.over_draws(dist.Normal(0.0, 1.0), vi.shard.make_mesh(), "draws")


@pytest.mark.parametrize(
    ("name", "shape", "spec"),
    [
        ("kernel", (6, 8), P(None, "model")),
        ("kernel", (3, 3, 6, 8), P(None, None, None, "model")),
        ("bias", (8,), P("model")),
        ("bias", (7,), P()),  # the devices do not divide it
        ("log_sigma", (8,), P()),  # no entry in the table
        ("kernel", (), P()),
    ],
)
def test_rules(name, shape, spec):
    path = (jax.tree_util.DictKey("Dense_0"), jax.tree_util.DictKey(name))
    assert vi.shard.spec_of(path, shape, AbstractMesh((4, 2), ("data", "model"))) == spec


@pytest.mark.integration
def test_draws_over_devices_are_a_guide_like_its_own():
    mesh = vi.shard.make_mesh()
    q = dist.Normal(jnp.zeros(2), 1.0).to_event(1)
    over = vi.shard.over_draws(q, mesh)
    np.testing.assert_array_equal(
        *(jax.jit(lambda q: q.sample(jax.random.key(0), (4,)))(guide) for guide in (over, q))
    )
    np.testing.assert_array_equal(over.log_prob(jnp.ones(2)), q.log_prob(jnp.ones(2)))
    np.testing.assert_array_equal(over.sample(jax.random.key(1)), q.sample(jax.random.key(1)))
    assert over.has_rsample
    assert over.event_shape == (2,)


@pytest.mark.integration
def test_batches_that_do_not_divide_are_refused_and_a_run_compiles_once():
    layout = vi.shard.make_layout(vi.shard.make_mesh())
    model = vi.models.vae((4,), num_latents=2, hidden=(8,))
    optimizer = optax.sgd(1e-3)
    step = vi.make_step(vi.losses.negative_elbo(model), optimizer)
    traces = []

    def counted(state, batch):
        traces.append(batch.shape)
        return step(state, batch)

    with pytest.raises(
        ValueError, match="a batch of 7 examples does not lie evenly over 2 devices"
    ):
        vi.make_run(step, batch_size=7, layout=layout._replace(num_shards=2))
    state = vi.init_state(jax.random.key(0), model.init, optimizer, layout=layout)
    run = vi.make_run(counted, batch_size=2, layout=layout)
    x = layout.replicate(jnp.ones((4, 4)))
    state, _ = run(state, x, 1)
    once = len(traces)
    run(state, x, 3)
    assert len(traces) == once


def test_alone_changes_nothing_and_is_what_none_stands_for():
    alone = vi.shard.ALONE
    assert vi.shard.as_layout(None) is alone
    layout = vi.shard.make_layout(vi.shard.make_mesh())
    assert vi.shard.as_layout(layout) is layout
    tree = {"kernel": jnp.ones((2, 3)), "none": None}
    for change in (alone.replicated, alone.replicate, alone.fetch, alone.spread, alone.gather):
        assert change(tree) is tree
    assert alone.settle(tree) is tree
    assert jax.tree.leaves(alone.shardings(tree)) == []
    assert alone.jit is jax.jit
    np.testing.assert_array_equal(alone.make(jnp.exp, jnp.zeros(3)), np.ones(3))
    rows = np.arange(12).reshape(2, 6)
    np.testing.assert_array_equal(alone.load(lambda part: rows[:, part], (2, 6), axis=1), rows)


def test_the_programs_of_one_device_are_the_same_without_a_layout():
    model = vi.models.vae((4,), num_latents=2, hidden=(8,))
    optimizer = optax.sgd(1e-3)
    step = vi.make_step(vi.losses.negative_elbo(model), optimizer)
    state = vi.init_state(jax.random.key(0), model.init, optimizer)
    batch = jnp.ones((2, 4))
    plain = jax.jit(step).trace(state, batch).jaxpr
    for layout in (None, vi.shard.ALONE):
        ours = jax.jit(vi.training.on_layout(step, layout)).trace(state, batch).jaxpr
        assert str(ours) == str(plain)
