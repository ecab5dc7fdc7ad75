"""Laws that every family of the folder obeys: normalised, sampled as its density says,
differentiable, over vectors and pytrees.
"""

from functools import cache, partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import all_finite, assert_mean, central_differences, keys, members, normal
from jax.flatten_util import ravel_pytree
from scipy import stats

import vi_jax as vi

SMALL = {  # arguments beside the number of latents, where the default is larger than a law needs
    "iaf": {"num_layers": 2, "hidden": (4,)},
    "low_rank": {"rank": 2},
    "maf": {"num_layers": 2, "hidden": (4,)},
    "mixture": {"num_components": 3},
    "neural_spline": {"num_layers": 2, "num_bins": 3, "half_width": 3.0, "hidden": (4,)},
    "planar": {"num_layers": 2},
    "radial": {"num_layers": 2},
    "real_nvp": {"num_layers": 2, "hidden": (4,)},
    "sylvester": {"num_layers": 2},
}
# `constrained` takes supports and has a file of its own
FAMILIES = {
    name: partial(family, **SMALL.get(name, {}))
    for name, family in members(vi.families).items()
    if name != "constrained"
}
GAUSSIANS = ("full_rank", "mean_field")
# draws without one differentiable path: test_families_implicit.py
IMPLICIT = ("mixture", "student_t")
OWN_ORDER = ("block_diagonal", "gaussian_markov_chain")  # a pytree is more to them than its vector
NEUTRAL = {"student_t": stats.t(10)}  # what is not the standard normal at zero
# Sums over a grid on [-9, 9]^2 leave out the tails of t, and err at the knots of a spline, where
# the density has a kink.
LEFT_OUT = {"student_t": 1e-4, "neural_spline": 1e-4}


# Size of the parameters in the laws that sum over the grid. A coupling stretches by the exponential
# of what its network puts out: at 0.4 real_nvp has 1e-3 of its mass outside [-9, 9]^2 and maf 0.06,
# while their sums over [-30, 30]^2 are 1 to 1e-13 and 2e-5.
ON_GRID = {"iaf": 0.15, "maf": 0.15, "neural_spline": 0.15, "real_nvp": 0.15}
# One of each kind; laws that compile much run for the others with `-m slow`, and each has its
# mathematics in a file of its kind: test_families_gaussian.py, test_families_implicit.py,
# test_flows.py.
QUICK = ("mixture", "real_nvp")


def slow_but(*quick):
    """All members as parameters, those not named marked slow."""
    return [
        pytest.param(name, marks=[] if name in quick else pytest.mark.slow)
        for name in sorted(FAMILIES)
    ]


@pytest.fixture(scope="module", params=slow_but(*QUICK))
def name(request):
    """Of a member. All laws of one run together, so that what was compiled for it is shared and
    then let go.
    """
    yield request.param
    compiled.cache_clear()
    jax.clear_caches()


@pytest.fixture
def family(name):
    """num_latents or a pytree -> Family."""
    return FAMILIES[name]


@pytest.fixture(params=sorted(FAMILIES))
def any_family(request):
    """As `family`, of every member also in the default run: for what compiles nothing."""
    return FAMILIES[request.param]


@cache
def compiled(name, num_latents):
    """A member of so many latents with its functions of the parameters, compiled once for all laws
    of one dtype.
    """
    made = FAMILIES[name](num_latents)
    return SimpleNamespace(
        made=made,
        log_prob=jax.jit(lambda params, z: made.guide(params).log_prob(z)),
        log_probs=jax.jit(lambda params, z: jax.vmap(made.guide(params).log_prob)(z)),
        sample=jax.jit(
            lambda params, key, shape=(): made.guide(params).sample(key, shape), static_argnums=2
        ),
    )


def some_params(family, seed=0, size=0.5):
    """Parameters of the family's structure, away from zero."""
    row, unravel = ravel_pytree(shapes(family))
    return unravel(jnp.asarray(size * normal(seed, row.size), row.dtype))


def shapes(family):
    """Zeros like the family's parameters."""
    return jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
        jax.eval_shape(family.init, jax.random.key(0)),
    )


@pytest.mark.cases(rest=None, integration=["real_nvp-1"])
@pytest.mark.parametrize("num_latents", [1, 3])
def test_zero_parameters_are_the_neutral_member(name, num_latents):
    f = compiled(name, num_latents)
    if f.made.shared is not None:
        return  # starts at `init`
    params = shapes(f.made)
    neutral = NEUTRAL.get(name, stats.norm)
    z = jnp.asarray(normal(1, 10, num_latents), jnp.float32)
    np.testing.assert_allclose(
        f.log_probs(params, z), neutral.logpdf(np.asarray(z)).sum(-1), rtol=1e-5
    )
    draws = f.sample(params, jax.random.key(2), (4000,))
    assert_mean(draws, np.zeros(num_latents))
    assert_mean(draws**2, np.full(num_latents, neutral.var()))


@pytest.mark.parametrize("num_latents", [1, 3])
def test_shapes(any_family, num_latents):
    made = any_family(num_latents)
    q = jax.eval_shape(made.guide, some_params(made))
    assert isinstance(q, vi.Guide)
    for sample_shape in [(), (4, 5), (0,)]:
        draws = jax.eval_shape(
            lambda q, key, shape=sample_shape: q.sample(key, shape), q, jax.random.key(0)
        )
        assert draws.shape == (*sample_shape, num_latents)
    assert jax.eval_shape(lambda q, z: q.log_prob(z), q, jnp.zeros(num_latents)).shape == ()


def test_init_is_an_array_tree_of_strong_types(any_family):
    for leaf in jax.tree.leaves(jax.eval_shape(any_family(3).init, jax.random.key(0))):
        assert leaf.dtype == jnp.float32
        assert not leaf.weak_type  # a weak type compiles a step three times


def grid(num_points=401, half=9.0):
    side = np.linspace(-half, half, num_points)
    z = np.stack(np.meshgrid(side, side, indexing="ij"), -1).reshape(-1, 2)
    return z, (side[1] - side[0]) ** 2


@pytest.mark.cases(rest=None, integration=["real_nvp"])
def test_the_density_integrates_to_one_and_the_draws_follow_it(name, x64):
    f = compiled(name, 2)
    params = some_params(f.made, size=ON_GRID.get(name, 0.4))
    z, cell = grid()
    p = np.exp(np.asarray(f.log_probs(params, jnp.asarray(z)))) * cell
    np.testing.assert_allclose(p.sum(), 1.0, atol=LEFT_OUT.get(name, 1e-6))
    mean = p @ z
    second = np.einsum("n,ni,nj->ij", p, z, z)
    draws = f.sample(params, jax.random.key(5), (8000,))
    assert_mean(draws, mean)
    assert_mean(draws[:, :, None] * draws[:, None, :], second)


def test_the_score_has_mean_zero(name, x64):
    """E_q[grad log q] = 0 in every parameter holds only where draws follow the density that is
    stated.
    """
    f = compiled(name, 2)
    row, unravel = ravel_pytree(some_params(f.made, size=ON_GRID.get(name, 0.4)))
    z = f.sample(unravel(row), jax.random.key(5), (8000,))[:3000]
    score = jax.jit(
        jax.vmap(jax.grad(lambda row, z: f.made.guide(unravel(row)).log_prob(z)), (None, 0))
    )
    assert_mean(score(row, z), np.zeros(row.size))


def test_importance_weights_have_mean_one(name, x64):
    """E_q[p / q] = 1 for a p narrower than q."""
    f = compiled(name, 3)
    params = some_params(f.made, size=0.3)
    z = f.sample(params, jax.random.key(3), (4001,))
    log_p = stats.norm.logpdf(np.asarray(z), np.asarray(z[-1]), 0.5).sum(-1)
    assert_mean(np.exp(log_p - np.asarray(f.log_probs(params, z)))[:-1], 1.0)


@pytest.mark.cases(rest=None, integration=["5-full_rank"])
@pytest.mark.parametrize("which", GAUSSIANS)
@pytest.mark.parametrize("num_latents", [1, 5])
def test_gaussians_are_those_of_scipy(which, num_latents, x64):
    family = FAMILIES[which](num_latents)
    params = some_params(family, seed=num_latents)
    q = family.guide(params)
    if which == "mean_field":
        tril = np.diag(np.exp(params["log_scale"]))
    else:
        tril = np.diag(np.exp(params["log_diag"]))
        tril[np.tril_indices(num_latents, -1)] = params["lower"]  # by rows
    oracle = stats.multivariate_normal(np.asarray(params["loc"]), tril @ tril.T)
    z = normal(9, 6, num_latents)
    np.testing.assert_allclose(
        jax.jit(q.log_prob)(jnp.asarray(z)), oracle.logpdf(z.squeeze()), rtol=1e-10
    )
    draws = jax.jit(lambda key: q.sample(key, (8000,)))(jax.random.key(6))
    centred = draws - np.asarray(params["loc"])
    assert_mean(draws, params["loc"])
    assert_mean(centred[:, :, None] * centred[:, None, :], tril @ tril.T)


@pytest.mark.integration
def test_full_rank_reaches_what_mean_field_cannot(x64):
    family = vi.families.full_rank(2)
    q = family.guide({"loc": jnp.zeros(2), "log_diag": jnp.zeros(2), "lower": jnp.array([0.7])})
    np.testing.assert_allclose(q.covariance_matrix, [[1.0, 0.7], [0.7, 1.49]], rtol=1e-12)


@pytest.mark.cases(rest=None, integration=["planar", "real_nvp"])
@pytest.mark.parametrize(
    "which",
    [
        which
        for which in slow_but(*QUICK, "mean_field", "planar")
        if which.values[0] not in IMPLICIT
    ],
)
def test_the_gradient_through_draws_is_that_of_finite_differences(which, x64):
    made = FAMILIES[which](3)
    row, unravel = ravel_pytree(some_params(made))

    def f(row):
        q = made.guide(unravel(jnp.asarray(row)))
        z = q.sample(jax.random.key(1), (4,))
        return jnp.sin(z).sum() + jax.vmap(q.log_prob)(jnp.cos(z)).sum()

    gradient = jax.jit(jax.grad(f))(row)
    if made.shared is None:
        assert jnp.abs(gradient).min() > 0  # every parameter matters, where none is masked
    np.testing.assert_allclose(
        gradient, central_differences(jax.jit(f), row, step=1e-5), rtol=1e-6, atol=1e-6
    )


@pytest.mark.cases(rest=None, integration=["real_nvp"])
def test_jit_vmap_and_grad_compose(family):
    made = family(3)
    rows = [ravel_pytree(some_params(made, seed))[0] for seed in range(4)]
    unravel = ravel_pytree(some_params(made))[1]

    def f(row, key):
        q = made.guide(unravel(row))
        z = q.sample(key)
        return z, q.log_prob(z)

    alone = jax.jit(f)
    z, log_q = jax.jit(jax.vmap(f))(jnp.stack(rows), keys(0, 4))
    for i, key in enumerate(keys(0, 4)):
        one = alone(rows[i], key)
        np.testing.assert_allclose(z[i], one[0], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(log_q[i], one[1], rtol=1e-5, atol=1e-5)


def test_a_guide_crosses_jit_scan_and_tree_map(name):
    f = compiled(name, 3)
    params = some_params(f.made)
    z = jnp.ones(3)
    expected = f.log_prob(params, z)
    q = f.made.guide(params)

    def carry(q, z):
        carried, _ = jax.lax.scan(
            lambda q, _: (jax.tree.map(lambda leaf: leaf * 1.0, q), None), q, length=2
        )
        return q.log_prob(z), carried.log_prob(z), vi.freeze(q).log_prob(z)

    np.testing.assert_allclose(jnp.stack(jax.jit(carry)(q, z)), expected, rtol=1e-5)
    assert jax.tree.structure(jax.jit(f.made.guide)(params)) == jax.tree.structure(q)


def test_freeze_stops_its_parameters_and_not_z(name):
    made = compiled(name, 3).made
    z = jnp.array([0.3, -0.2, 0.8])
    row, unravel = ravel_pytree(some_params(made))

    def densities_and_draw(row, z):
        q = made.guide(unravel(row))
        return jnp.stack(
            [vi.freeze(q).log_prob(z), q.log_prob(z), vi.freeze(q).sample(jax.random.key(0)).sum()]
        )

    by_row, by_z = jax.jit(jax.jacrev(densities_and_draw, (0, 1)))(row, z)
    np.testing.assert_array_equal(by_row[jnp.array([0, 2])], 0.0)
    assert jnp.abs(by_row[1]).max() > 0
    np.testing.assert_allclose(by_z[0], by_z[1], rtol=1e-5)


def test_a_stated_mean_is_that_of_the_draws(name):
    f = compiled(name, 3)
    params = some_params(f.made)
    q = f.made.guide(params)
    if not hasattr(q, "mean"):
        with pytest.raises(AttributeError, match="average"):
            _ = q.mean
        return
    assert_mean(f.sample(params, jax.random.key(8), (4000,)), q.mean)


@pytest.mark.cases(rest=None, integration=["mixture"])
def test_large_parameters_leave_float32_finite(name):
    made = compiled(name, 3).made

    @jax.jit
    def densities_of_draws(params, key):
        def f(params):
            q = made.guide(params)
            z = q.sample(key, (16,))
            return jax.vmap(q.log_prob)(z).sum(), z

        return jax.value_and_grad(f, has_aux=True)(params)

    for size in (3.0, 8.0):
        (log_q, z), gradient = densities_of_draws(
            some_params(made, seed=3, size=size), jax.random.key(0)
        )
        assert z.dtype == jnp.float32
        assert all_finite((log_q, z, gradient))


def test_draws_with_densities_are_those_of_sample_and_log_prob(name, x64):
    f = compiled(name, 3)
    params = some_params(f.made, size=0.3)
    if not hasattr(f.made.guide(params), "sample_and_log_prob"):
        return  # no cheaper direction
    z, log_q = jax.jit(
        lambda params: f.made.guide(params).sample_and_log_prob(jax.random.key(1), (4, 2))
    )(params)
    # to rounding: these are two programs, and how XLA fuses each is its own affair
    np.testing.assert_allclose(z, f.sample(params, jax.random.key(1), (4, 2)), rtol=1e-13)
    np.testing.assert_allclose(log_q, f.log_prob(params, z), atol=1e-9)  # of many z at once, [4, 2]


def example():
    """Latents whose leaves do not come in the order of their names; 9 numbers, 3 steps."""
    return {"b": jnp.zeros(3), "a": (jnp.zeros((3, 2)),)}


def lay(name, tree):
    """The numbers of a tree like `example` in the order of the family: leaf by leaf, names sorted,
    but a chain step by step.
    """
    a = np.asarray(tree["a"][0])
    b = np.asarray(tree["b"])
    return (
        np.concatenate([a, b[:, None]], 1).ravel()
        if name == "gaussian_markov_chain"
        else np.concatenate([a.ravel(), b])
    )


@pytest.mark.cases(rest=None, integration=["real_nvp"])
def test_on_a_pytree_it_is_the_same_guide(name, family):
    made = family(example())
    plain = family(9)
    params = some_params(made, size=0.3)

    @jax.jit
    def tree(params, key):
        q = made.guide(params)
        z = q.sample(key, (4, 5))
        return (
            z,
            jax.vmap(jax.vmap(q.log_prob))(z),
            jax.grad(lambda q: q.log_prob(jax.tree.map(lambda leaf: leaf[1, 2], z)))(q),
        )

    @jax.jit
    def vector(params, key):
        q = made.guide(params).base if name in OWN_ORDER else plain.guide(params)
        z = q.sample(key, (4, 5))
        return z, jax.vmap(jax.vmap(q.log_prob))(z)

    (z, log_q, gradient) = tree(params, jax.random.key(0))
    (rows, log_rows) = vector(params, jax.random.key(0))
    assert jax.tree.map(jnp.shape, z) == {"b": (4, 5, 3), "a": ((4, 5, 3, 2),)}
    np.testing.assert_allclose(
        lay(name, jax.tree.map(lambda leaf: leaf[1, 2], z)), rows[1, 2], rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(log_q, log_rows, rtol=1e-4, atol=1e-4)
    assert all_finite(gradient)
    q = made.guide(params)
    assert isinstance(q, vi.Guide)
    if hasattr(q, "mean"):
        np.testing.assert_array_equal(lay(name, q.mean), q.base.mean)


@pytest.mark.parametrize(
    "bad", [True, "3", [], {"a": jnp.zeros((0,))}, {"a": jnp.zeros(2, jnp.int32)}]
)
def test_examples_that_are_no_latents_are_refused(any_family, bad):
    with pytest.raises(ValueError, match="latents"):
        any_family(bad)


@pytest.mark.parametrize("num_latents", [0, -2])
def test_sizes_that_are_none_are_refused(any_family, num_latents):
    with pytest.raises(ValueError, match=f"at least 1; got {num_latents}"):
        any_family(num_latents)


@pytest.mark.slow
def test_an_encoder_amortises_it(name, family):
    x = jnp.asarray(normal(0, 4, 6) > 0, jnp.float32)
    model = vi.models.vae((6,), num_latents=3, hidden=(5,), family=family)
    params = jax.jit(model.init)(jax.random.key(0))

    def draw_and_density(key, x):
        q = model.densities.guide(params, x)
        z = q.sample(key)
        return z, q.log_prob(z)

    z, log_q = jax.jit(jax.vmap(draw_and_density))(keys(1, 4), x)
    assert z.shape == (4, 3)
    # the last layer starts small: q is near the standard normal, for any x (but for a mixture,
    # whose components start apart)
    near = stats.norm.logpdf(np.asarray(z)).sum(-1)
    np.testing.assert_allclose(log_q, near, atol=5.0 if name == "mixture" else 1.0)
    assert not np.array_equal(log_q, near)

    def loss(params):
        return vi.losses.negative_bound(
            model, vi.bounds.iwae, vi.estimators.reparam, num_samples=3
        )(params, jax.random.key(2), x, jnp.int32(0))[0]

    gradient = jax.jit(jax.grad(loss))(params)
    assert all_finite(gradient)
    assert all(jnp.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient["encoder"]))
    assert (family(3).shared is not None) == ("guide" in gradient)


@pytest.mark.slow
@pytest.mark.parametrize("which", ["low_rank", "mixture", "planar", "real_nvp", "student_t"])
def test_a_vae_with_it_trains(which):
    x = jnp.asarray(normal(0, 32, 6) > 0, jnp.float32)
    model = vi.models.vae((6,), num_latents=2, hidden=(8,), family=FAMILIES[which])
    loss = vi.losses.negative_bound(model, vi.bounds.elbo, vi.estimators.reparam, num_samples=2)
    _, history = vi.train(
        jax.random.key(0),
        model,
        loss,
        optax.adam(1e-2),
        x,
        num_steps=120,
        batch_size=16,
        log_every=40,
    )
    assert history[-1]["loss"] < history[0]["loss"] - 0.1
