"""The deep latent Gaussian model: linear ones by their Gaussian marginal, one pass by hand, and the
gradients of Bonnet and Price.
"""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from helpers import assert_mean, bounds, keys, members, normal
from scipy import stats

import vi_jax as vi
from vi_jax.models import likelihoods

NOISE = 0.7
SIZES = {"xi1": 4, "xi2": 3}
X = normal(0, 5)
BOUNDS = bounds()
ESTIMATORS = members(vi.estimators)
EXACT_ENTROPY = {"price"}  # not log q of the samples but its mean: not constant at the posterior


def as_float(x):
    return jnp.asarray(x, jnp.result_type(float))


@functools.cache
def linear(family=vi.families.rank_one_precision):
    """x = W1' xi1 + W2' xi2 + b + noise, by identities between the layers."""
    return vi.models.dlgm(
        (5,),
        num_latents=tuple(SIZES.values()),
        hidden=((6,), (3,)),
        activation=lambda h: h,
        family=family,
        likelihood=likelihoods.gaussian(NOISE),
    )


# The layers write to dimensions of h1 of their own, so that the posterior is a product over layers,
# each of precision D + u u' with D not the identity.
SPAN = 1.3 * np.linalg.qr(normal(1, 5, 5))[0][:4]  # T_0, of orthogonal rows
OFFSET = normal(2, 5)
EXTRA = 0.8  # of the first latent of each layer
U = {"xi1": normal(3, 4), "xi2": normal(4, 3)}


def to_h1(name):
    """The loadings of a layer on h1, [D_l, 4]."""
    first = 0 if name == "xi1" else 2
    found = np.zeros((SIZES[name], 4))
    found[0, first] = EXTRA
    found[:, first + 1] = U[name]
    return found


def loadings():
    """W [7, 5] of (xi1, xi2)."""
    return np.concatenate([to_h1(name) @ SPAN for name in SIZES])


def exact_params():
    """Parameters of these loadings, whose guide is the posterior at X."""
    params = jax.eval_shape(linear().init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), params)
    decoder = params["decoder"]
    gain = normal(5, 3, 3)
    decoder["gains"] = {"xi1": to_h1("xi1"), "xi2": gain}
    of_top = np.linalg.solve(gain, to_h1("xi2"))
    decoder["transforms"]["xi1"]["Dense_0"]["kernel"] = np.eye(3)
    decoder["transforms"]["xi1"]["Dense_1"]["kernel"] = of_top
    decoder["out"]["Dense_0"]["kernel"] = np.eye(4, 6)
    decoder["out"]["Dense_1"] = {"kernel": np.eye(6, 4) @ SPAN, "bias": OFFSET}
    for name, size in SIZES.items():
        ratio = 1.3 / NOISE
        w = to_h1(name) @ SPAN
        precision = np.eye(size) + w @ w.T / NOISE**2
        loc = np.linalg.solve(precision, w @ (X - OFFSET)) / NOISE**2
        log_scale = np.zeros(size)
        log_scale[0] = -0.5 * np.log1p((EXTRA * ratio) ** 2)
        params["heads"][name]["Dense_0"]["bias"] = np.concatenate([loc, log_scale, ratio * U[name]])
    return jax.tree.map(as_float, params)


def log_evidence():
    w = loadings()
    return stats.multivariate_normal(OFFSET, w.T @ w + NOISE**2 * np.eye(5)).logpdf(X)


@pytest.mark.cases(rest="slow", integration=["dreg", "score"])
@pytest.mark.integration
@pytest.mark.parametrize(
    "estimator",
    [
        name if name == "dreg" else pytest.param(name, marks=pytest.mark.integration)
        for name in sorted(set(ESTIMATORS) - EXACT_ENTROPY)
    ],
)
def test_a_linear_one_gives_its_marginal_for_every_bound_and_key(estimator):
    params = exact_params()
    model = linear()

    def values(key, params):
        found = {}
        for number, (name, bound) in enumerate(sorted(BOUNDS.items())):
            own = jax.random.fold_in(key, number)
            with contextlib.suppress(ValueError):  # it refuses those that it is not valid for
                found[name] = vi.losses.batch_bound(
                    own, model, params, as_float(X)[None], bound, ESTIMATORS[estimator],
                    num_samples=4,
                )[0]  # fmt: skip
        return found

    found = jax.jit(jax.vmap(values, (0, None)))(keys(0, 5), params)
    if not found:
        pytest.skip(f"{estimator} takes no Gaussian guide")
    for name, each in found.items():
        np.testing.assert_allclose(each, log_evidence(), rtol=2e-5, err_msg=name)


def moved(model, scale=0.3):
    params = jax.jit(model.init)(jax.random.key(0))
    leaves, structure = jax.tree.flatten(params)
    shifted = [
        leaf + scale * jnp.asarray(normal(number, *leaf.shape), leaf.dtype)
        for number, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(structure, shifted)


def linear_elbo(model, params):
    """In closed form: log N(x | W'm + b, s^2 I) - tr(W W' C) / 2 s^2 - KL."""
    densities = model.densities
    x = as_float(X)
    layers = densities.guide(params, x).at({name: jnp.zeros(n) for name, n in SIZES.items()})

    def mean(xi):
        return densities.decode(params, x, xi).mean

    w = jax.jacobian(mean)({name: q.mean for name, q in layers.items()})
    value = dist.Normal(mean({name: q.mean for name, q in layers.items()}), NOISE)
    value = value.log_prob(x).sum()
    for name, q in layers.items():
        base = getattr(q, "base_dist", None)
        cov = q.covariance_matrix if base is None else jnp.diag(base.scale**2)
        value -= 0.5 * jnp.trace(w[name] @ cov @ w[name].T) / NOISE**2
        value -= 0.5 * (jnp.trace(cov) + q.mean @ q.mean - len(cov) - jnp.linalg.slogdet(cov)[1])
    return value


@pytest.mark.cases(rest="slow", integration=["diagonal"])
@pytest.mark.integration
@pytest.mark.parametrize(
    "family", [vi.families.rank_one_precision, vi.families.mean_field], ids=["rank one", "diagonal"]
)
def test_prices_gradient_of_a_linear_one_has_no_noise_in_the_covariances(family):
    """log p(x, .) is quadratic: its Hessian is one matrix; the gradient of the means is noisy."""
    model = linear(family)
    params = moved(model)
    loss = vi.losses.negative_bound(model, vi.bounds.elbo, vi.estimators.price, num_samples=2)

    def with_biases(biases):
        heads = {name: {"Dense_0": {**params["heads"][name]["Dense_0"], "bias": b}}
                 for name, b in biases.items()}  # fmt: skip
        return {**params, "heads": heads}

    @jax.jit
    def both(biases, each):
        def by_price(biases, key):
            return -loss(with_biases(biases), key, as_float(X)[None], jnp.int32(0))[0]

        found = jax.vmap(jax.grad(by_price), (None, 0))(biases, each)
        return found, jax.grad(lambda b: linear_elbo(model, with_biases(b)))(biases)

    found, exact = both(
        {name: params["heads"][name]["Dense_0"]["bias"] for name in SIZES}, keys(1, 400)
    )
    for name, size in SIZES.items():
        assert_mean(found[name][:, :size], exact[name][:size])
        wanted = np.broadcast_to(exact[name][size:], found[name][:, size:].shape)
        np.testing.assert_allclose(found[name][:, size:], wanted, rtol=1e-4, atol=1e-4)


def by_hand(key, params, x):
    """The ELBO of a model of two ReLU layers at one draw, written out in one pass."""

    def dense(layer, h):
        return h @ layer["kernel"] + layer["bias"]

    d1 = jax.nn.relu(dense(params["up"]["xi1"]["Dense_0"], x))
    d2 = jax.nn.relu(dense(params["up"]["xi2"]["Dense_0"], d1))
    row1 = jnp.split(dense(params["heads"]["xi1"]["Dense_0"], d1), 2)
    row2 = jnp.split(dense(params["heads"]["xi2"]["Dense_0"], d2), 2)
    xi2 = row2[0] + jnp.exp(row2[1]) * jax.random.normal(jax.random.fold_in(key, 0), (3,))
    xi1 = row1[0] + jnp.exp(row1[1]) * jax.random.normal(jax.random.fold_in(key, 1), (4,))
    kl = sum(0.5 * (m**2 + jnp.exp(2 * s) - 1 - 2 * s).sum() for m, s in (row1, row2))
    decoder = params["decoder"]
    up = decoder["transforms"]["xi1"]
    h2 = xi2 @ decoder["gains"]["xi2"]
    h1 = dense(up["Dense_1"], jax.nn.relu(dense(up["Dense_0"], h2)))
    h1 = h1 + xi1 @ decoder["gains"]["xi1"]
    out = decoder["out"]
    logits = dense(out["Dense_1"], jax.nn.relu(dense(out["Dense_0"], h1)))
    log_lik = (x * jax.nn.log_sigmoid(logits) + (1 - x) * jax.nn.log_sigmoid(-logits)).sum()
    return log_lik - kl


@pytest.mark.integration
def test_its_terms_are_those_of_one_pass_by_hand():
    model = vi.models.dlgm((5,), num_latents=(4, 3), hidden=((6,), (3,)))
    params = moved(model)
    x = as_float(X > 0)

    def by_terms(key, params, x):
        terms = model.terms(key, params, x)
        return terms.log_lik - sum(kl.sum() for kl in terms.kl.values())

    key = jax.random.key(3)
    with jax.debug_key_reuse(False):
        ours, ours_slope = jax.jit(jax.value_and_grad(by_terms, 1))(key, params, x)
        hand, hand_slope = jax.jit(jax.value_and_grad(by_hand, 1))(key, params, x)
    np.testing.assert_allclose(ours, hand, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(ours_slope), jax.tree.leaves(hand_slope), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.integration
def test_prices_gradient_asks_for_layers_that_depend_on_no_other():
    model = vi.models.ladder_vae((5,), num_latents=(2, 1), hidden=((4,), (4,)))
    params = jax.eval_shape(model.init, jax.random.key(0))
    with pytest.raises(ValueError, match=r"given=\(\)\); here \['z1'\] depend"):
        jax.eval_shape(
            lambda params, x: vi.losses.batch_bound(
                jax.random.key(0), model, params, x, vi.bounds.elbo, vi.estimators.price,
                num_samples=1,
            ),
            params,
            as_float(X)[None],
        )  # fmt: skip
