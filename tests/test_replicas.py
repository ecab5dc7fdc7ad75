"""Runs side by side are the runs that they would be alone."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vi_jax as vi

MODEL = vi.models.vae((4, 4), num_latents=2, hidden=(8,))
OPTIMIZER = optax.adam(1e-2)
R = 4
X = jnp.asarray(np.random.default_rng(0).integers(0, 2, (30, 4, 4)).astype(np.float32))
STEP = vi.make_step(vi.losses.negative_elbo(MODEL), OPTIMIZER, ema_decay=0.9)


@pytest.fixture(autouse=True)
def _folded_keys_are_not_drawn_from():
    """JAX takes a key that is folded under vmap inside a loop for one that was drawn from."""
    with jax.debug_key_reuse(False):
        yield


INITIAL = [
    vi.init_state(jax.random.key(seed), MODEL.init, OPTIMIZER, ema=True) for seed in range(R)
]


def starts():
    """Copies, which may be donated."""
    return [jax.tree.map(jnp.copy, state) for state in INITIAL]


def assert_same(a, b):
    a, b = (state._replace(key=jax.random.key_data(state.key)) for state in (a, b))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5, atol=1e-6), a, b)


@pytest.mark.integration
def test_each_ends_where_it_would_alone():
    run = vi.replicas.make_run(STEP, batch_size=8)
    states = vi.replicas.stack(starts())
    rows = []
    for num in (3, 5, 10):
        states, info = run(states, X, num, np.ones(R, bool))
        rows.append(info.metrics["loss"])
    alone = vi.make_run(STEP, batch_size=8)
    for which, state in enumerate(starts()):
        losses = []
        for num in (3, 5, 10):
            state, info = alone(state, X, num)
            losses.append(info.metrics["loss"])
        assert_same(vi.replicas.pick(states, which), state)
        np.testing.assert_allclose(np.array(rows)[:, which], losses, rtol=1e-5)


@pytest.mark.integration
def test_one_that_is_not_finite_stands_still_and_the_others_go_on():
    def breaking(state, batch):
        new, metrics = STEP(state, batch)
        broken = (state.step == 2) & (
            jax.random.key_data(state.key) == jax.random.key_data(bad.key)
        ).all()
        return new, {**metrics, "loss": jnp.where(broken, jnp.nan, metrics["loss"])}

    bad = starts()[1]
    run = vi.replicas.make_run(breaking, batch_size=8)
    alone = vi.make_run(STEP, batch_size=8)
    states, info = run(vi.replicas.stack(starts()), X, 6, np.ones(R, bool))
    np.testing.assert_array_equal(info.bad_step, [-1, 2, -1, -1])
    states, info = run(states, X, 4, np.asarray(info.bad_step) < 0)
    assert_same(vi.replicas.pick(states, 0), alone(starts()[0], X, 10)[0])
    stopped = alone(starts()[1], X, 2)[0]
    assert_same(vi.replicas.pick(states, 1)._replace(step=stopped.step), stopped)


@pytest.mark.integration
def test_replicas_that_do_not_go_together_are_refused():
    first, *rest = starts()
    with pytest.raises(ValueError, match=r"from one step; got 4 at the steps \[0, 1\]"):
        vi.replicas.stack([STEP(first, X[:8])[0], *rest])
    with pytest.raises(ValueError, match="at least 1"):
        vi.replicas.make_run(STEP, batch_size=0)
    layout = vi.shard.make_layout(vi.shard.make_mesh())._replace(num_shards=3)
    with pytest.raises(ValueError, match="4 replicas do not lie evenly over 3 devices"):
        vi.replicas.make_run(STEP, batch_size=8, layout=layout)(
            vi.replicas.stack(starts()), X, 1, np.ones(R, bool)
        )


@pytest.mark.integration
def test_examples_may_be_a_pytree():
    """The pictures and, beside them, a number for each that says how much of it is shown."""
    base = vi.losses.negative_elbo(MODEL)

    def loss(params, key, batch, step):
        shown = batch["share"][:, None, None] * batch["x"]
        return base(params, key, shown, step)

    step = vi.make_step(loss, OPTIMIZER, ema_decay=0.9)
    data = {"x": X, "share": jnp.linspace(0.5, 1.0, len(X))}
    states, _ = vi.replicas.make_run(step, batch_size=8)(
        vi.replicas.stack(starts()), data, 5, np.ones(R, bool)
    )
    state, _ = vi.make_run(step, batch_size=8)(starts()[1], data, 5)
    assert_same(vi.replicas.pick(states, 1), state)
