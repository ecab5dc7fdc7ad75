"""Walks with holes: drawing, scoring, replaying; the KL by site; guides and priors of two layers
whose exact posterior is known.

z2 ~ N(0, I) [2], z1 | z2 ~ N(A z2, R^2) [3], x | z1 ~ N(W z1 + b, S^2) [4].
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from helpers import assert_mean, keys, normal, undeclared

import vi_jax as vi
from vi_jax.distributions import Bernoulli, Program, paired
from vi_jax.models import from_densities

A = 0.8 * normal(0, 3, 2)
W = 0.7 * normal(1, 4, 3)
B = normal(2, 4)
R = 0.6
S = 0.8
X = normal(3, 4)


def as_float(value):
    return jnp.asarray(value, jnp.result_type(float))


def gaussian(loc, scale):
    return dist.Normal(loc, jnp.broadcast_to(jnp.exp(scale), loc.shape)).to_event(1)


def top_down(params, context, site):
    z2 = site("z2", gaussian(params["loc2"], params["scale2"]))
    site("z1", gaussian(params["a"] @ z2 + params["loc1"], params["scale1"]))


PRIOR = {
    "a": A,
    "loc1": np.zeros(3),
    "loc2": np.zeros(2),
    "scale1": np.log(R),
    "scale2": np.zeros(()),
}


def prior(params=PRIOR):
    return Program(jax.tree.map(as_float, params), None, top_down)


def full(loc, cholesky):
    return dist.MultivariateNormal(loc, scale_tril=cholesky)


def up(params, context, site):
    """q(z1 | x) q(z2 | z1): the order of Burda et al. (2016)."""
    z1 = site("z1", full(params["loc"], params["chol1"]))
    site("z2", full(params["gain"] @ z1 + params["shift"], params["chol2"]))


def down(params, context, site):
    """q(z2 | x) q(z1 | z2, x)."""
    z2 = site("z2", full(params["loc"], params["chol1"]))
    site("z1", full(params["gain"] @ z2 + params["shift"], params["chol2"]))


def joint_moments():
    """Mean and covariance of (z1, z2, x) in float64."""
    top = np.eye(2)
    cov1 = A @ A.T + R**2 * np.eye(3)
    upper = np.block([[cov1, A @ top], [top @ A.T, top]])
    to_x = np.hstack([W, np.zeros((4, 2))])
    mean = np.concatenate([np.zeros(5), B])
    cov = np.block(
        [[upper, upper @ to_x.T], [to_x @ upper, to_x @ upper @ to_x.T + S**2 * np.eye(4)]]
    )
    return mean, cov


def posterior_moments(x=X):
    mean, cov = joint_moments()
    gain = cov[:5, 5:] @ np.linalg.inv(cov[5:, 5:])
    return gain @ (x - mean[5:]), cov[:5, :5] - gain @ cov[5:, :5]


def log_evidence(x=X):
    mean, cov = joint_moments()
    off = x - mean[5:]
    inner = cov[5:, 5:]
    return -0.5 * (off @ np.linalg.solve(inner, off) + np.linalg.slogdet(2 * np.pi * inner)[1])


def exact_params(walk):
    """Of the walk's exact posterior."""
    mean, cov = posterior_moments()
    order = np.arange(5) if walk is up else np.array([3, 4, 0, 1, 2])
    first = 3 if walk is up else 2
    mean = mean[order]
    cov = cov[np.ix_(order, order)]
    gain = cov[first:, :first] @ np.linalg.inv(cov[:first, :first])
    rest = cov[first:, first:] - gain @ cov[:first, first:]
    return {
        "chol1": np.linalg.cholesky(cov[:first, :first]),
        "chol2": np.linalg.cholesky(rest),
        "gain": gain,
        "loc": mean[:first],
        "shift": mean[first:] - gain @ mean[:first],
    }


def guide(walk):
    return Program(jax.tree.map(as_float, exact_params(walk)), None, walk)


def log_joint(params):
    def of(z):
        loc = as_float(W) @ z["z1"] + as_float(B)
        return prior(params).log_prob(z) + dist.Normal(loc, S).log_prob(as_float(X)).sum()

    return of


# --- drawing, scoring, replaying
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("walk", [up, down])
def test_the_mean_path_of_a_linear_gaussian_is_its_mean(walk):
    mean, _ = posterior_moments()
    found = guide(walk).mean_path()
    np.testing.assert_allclose(found["z1"], mean[:3], rtol=1e-4)
    np.testing.assert_allclose(found["z2"], mean[3:], rtol=1e-4)
    first, second = ("z1", "z2") if walk is up else ("z2", "z1")
    given = guide(walk).condition({first: found[first] + 1.0}).mean_path()
    gain = exact_params(walk)["gain"]
    np.testing.assert_allclose(given[second] - found[second], gain.sum(1), rtol=1e-3, atol=1e-5)
    with pytest.raises(AttributeError):
        Program(None, None, lambda *args: args[2]("z", object())).mean_path()


@pytest.mark.integration
def test_draws_have_the_law_that_is_scored():
    p = prior()
    z = p.sample(jax.random.key(0), (5_000,))
    assert jax.tree.map(jnp.shape, z) == {"z1": (5_000, 3), "z2": (5_000, 2)}
    both = np.concatenate([z["z1"], z["z2"]], -1)
    cov = joint_moments()[1][:5, :5]
    assert_mean(both, np.zeros(5))
    assert_mean(both[:, :, None] * both[:, None, :], cov)
    one = jax.tree.map(lambda leaf: leaf[0], z)
    wanted = dist.MultivariateNormal(np.zeros(5), cov).log_prob(both[0])
    np.testing.assert_allclose(p.log_prob(one), wanted, rtol=1e-5)


def test_a_walk_is_replayed_in_its_order():
    z = {"z1": jnp.ones(3), "z2": jnp.full(2, 0.5)}
    at = prior().at(z)
    assert list(at) == ["z2", "z1"]
    np.testing.assert_allclose(at["z1"].mean, A @ z["z2"], rtol=1e-5)
    total = sum(p.log_prob(z[name]) for name, p in at.items())
    np.testing.assert_allclose(prior().log_prob(z), total, rtol=1e-6)


@pytest.mark.integration
def test_noise_there_and_back():
    p = prior()
    z = p.sample(jax.random.key(1))
    eps = p.to_noise(z)
    np.testing.assert_allclose(eps["z1"], (z["z1"] - A @ z["z2"]) / R, rtol=1e-5, atol=1e-6)
    back = p.from_noise(eps)
    for name in z:
        np.testing.assert_allclose(back[name], z[name], rtol=1e-5, atol=1e-6)
    # a later latent is a function of the parameters of those before it
    moved = jax.grad(lambda p: p.from_noise(eps)["z1"].sum())(p).params["loc2"]
    np.testing.assert_allclose(moved, A.sum(0), rtol=1e-5)


@pytest.mark.integration
def test_a_program_is_a_pytree_and_a_guide():
    p = prior()
    assert isinstance(p, vi.types.Guide)
    z = p.sample(jax.random.key(2))
    np.testing.assert_allclose(jax.jit(lambda p, z: p.log_prob(z))(p, z), p.log_prob(z), rtol=1e-6)
    frozen = jax.grad(lambda p: vi.freeze(p).log_prob(z))(p)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(frozen))
    shapes = jax.tree.map(jnp.shape, p.sample(jax.random.key(3), (2, 3)))
    assert shapes == {"z1": (2, 3, 3), "z2": (2, 3, 2)}
    many = p.sample(jax.random.key(3), (2,))
    alone = [p.sample(key) for key in jax.random.split(jax.random.key(3), 2)]
    np.testing.assert_allclose(many["z1"], jnp.stack([z["z1"] for z in alone]), rtol=1e-6)


@pytest.mark.integration
def test_conditioning_holds_what_comes_first():
    z2 = jnp.array([0.3, -1.0])
    p = prior().condition({"z2": z2})
    z = p.sample(jax.random.key(4), (5_000,))
    assert set(z) == {"z1"}
    assert_mean(z["z1"], A @ z2)
    whole = {"z1": z["z1"][0], "z2": z2}
    wanted = prior().log_prob(whole) - prior().at(whole)["z2"].log_prob(z2)
    np.testing.assert_allclose(p.log_prob({"z1": z["z1"][0]}), wanted, rtol=1e-5)
    with pytest.raises(ValueError, match=r"'z1' comes after \['z2'\]"):
        prior().condition({"z1": jnp.ones(3)}).sample(jax.random.key(0))
    with pytest.raises(ValueError, match="for which the program has no"):
        prior().condition({"y": z2}).sample(jax.random.key(0))


def mixed(params, context, site):
    z1 = site("z1", gaussian(params, jnp.zeros(())))
    site("z2", Bernoulli(z1).to_event(1))


def test_draws_are_reparameterised_where_those_of_every_site_are():
    assert prior().has_rsample
    discrete = Program(jnp.zeros(2), None, mixed)
    assert not discrete.has_rsample
    assert jax.jit(lambda q: jnp.zeros(()) if q.has_rsample else jnp.ones(()))(discrete) == 1
    with pytest.raises(ValueError, match="not reparameterised"):
        vi.elbo(jax.random.key(0), lambda z: z["z1"].sum(), discrete)


def test_shapes_are_enough_to_say_whether_samples_are_reparameterised():
    def one(params, context, site):
        mean = jnp.asarray(context) @ jnp.asarray(params)  # which no ShapeDtypeStruct would take
        site("z", dist.Normal(mean, jnp.ones(2)).to_event(1))

    q = jax.eval_shape(lambda x: Program(jnp.ones((3, 2)), x, one), jnp.ones(3))
    assert q.has_rsample


def twice(params, context, site):
    site("z", gaussian(params, jnp.zeros(())))
    site("z", gaussian(params, jnp.zeros(())))


def batched(params, context, site):
    site("z", dist.Normal(params, 1.0))


def ahead(params, context, site):
    site("z", gaussian(params, jnp.zeros(())), given=["y"])


def test_errors_are_sentences():
    z = {"z1": jnp.ones(3), "z2": jnp.ones(2)}
    for bad, message in [
        (lambda: prior().log_prob({"z2": z["z2"]}), "visits the site 'z1', and z has"),
        (lambda: prior().log_prob({**z, "z3": 1.0}), "the program visits"),
        (lambda: prior().log_prob((1.0, 2.0)), "got tuple"),
        (lambda: Program(jnp.ones(2), None, twice).sample(jax.random.key(0)), "'z' twice"),
        (lambda: Program(jnp.ones(2), None, batched).sample(jax.random.key(0)), r"\.to_event"),
        (lambda: Program(1.0, None, lambda *_: None).sample(jax.random.key(0)), "no site"),
        (lambda: Program(jnp.ones(2), None, ahead).log_prob({"z": jnp.ones(2)}), "has not visited"),
    ]:
        with pytest.raises(ValueError, match=message):
            bad()


def ladder(params, features, site):
    """q follows p: a precision-weighted mean of the prior's and the data's, by hand."""

    def merged(p):
        return gaussian(0.5 * (p.base_dist.loc + features["up2"]), jnp.zeros(()))

    z2 = site("z2", gaussian(params["loc2"], params["scale2"]), merged)
    p1 = gaussian(params["a"] @ z2, params["scale1"])
    site("z1", p1, lambda p: gaussian(p.base_dist.loc + features["up1"], jnp.zeros(())))


def test_one_walk_for_both():
    walk_q, walk_p = paired(ladder)
    params = jax.tree.map(as_float, PRIOR)
    features = {"up1": jnp.ones(3), "up2": jnp.full(2, 2.0)}
    q = Program(params, features, walk_q)
    p = Program(params, None, walk_p)  # without features: only q looks at them
    z = q.sample(jax.random.key(5))
    np.testing.assert_allclose(p.log_prob(z), prior().log_prob(z), rtol=1e-5)
    at = q.at(z)
    np.testing.assert_allclose(at["z2"].mean, np.full(2, 1.0))
    np.testing.assert_allclose(at["z1"].mean, A @ z["z2"] + 1.0, rtol=1e-5)


# --- the KL by site
# --------------------------------------------------------------------------------------------


def model_of(walk, kl, walk_p=top_down):
    def init(key):
        return {"guide": jax.tree.map(as_float, exact_params(walk)), "prior": PRIOR}

    def decode(params, x, z):
        return dist.Normal(as_float(W) @ z["z1"] + as_float(B), S)

    return from_densities(
        init,
        lambda params, x: Program(params["guide"], None, walk),
        lambda params, x: Program(jax.tree.map(as_float, params["prior"]), None, walk_p),
        decode,
        lambda params, x, z: decode(params, x, z).log_prob(x).sum(),
        kl=kl,
    )


@pytest.mark.integration
def test_evaluation_of_a_program_has_the_means_of_its_sites():
    model = model_of(down, "closed")
    params = model.init(jax.random.key(0))
    x = jnp.stack([as_float(X)] * 3)
    found = vi.diagnostics.amortised.evaluate_examples(jax.random.key(1), model, params, x)
    mean, _ = posterior_moments()
    np.testing.assert_allclose(found["latent_mean"]["z1"], [mean[:3]] * 3, rtol=1e-4)
    np.testing.assert_allclose(found["latent_mean"]["z2"], [mean[3:]] * 3, rtol=1e-4)


def other_params(walk):
    """Away from the posterior."""
    exact = jax.tree.map(as_float, exact_params(walk))
    return {name: 1.2 * leaf if "chol" in name else leaf + 0.1 for name, leaf in exact.items()}


def loss_terms(model, walk, key):
    params = {"guide": other_params(walk), "prior": PRIOR}
    return model.terms(key, params, as_float(X))


def total(kl):
    return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(kl))


@pytest.mark.parametrize(("walk", "kl"), [(down, "closed"), (up, "half_closed")])
def test_closed_and_drawn_kls_have_one_mean(walk, kl):
    ours = model_of(walk, kl)
    drawn = model_of(walk, "drawn")

    @jax.jit
    @jax.vmap
    def both(key):
        return [total(loss_terms(model, walk, key).kl) for model in (ours, drawn)]

    a, b = (np.asarray(values, np.float64) for values in both(keys(6, 5_000)))
    assert_mean(a - b, 0.0)
    assert (a - b).std() > 0.1  # another estimate of the same number


@pytest.mark.integration
def test_the_order_of_the_walks_decides_what_is_closed_and_the_names_say_it():
    key = jax.random.key(7)
    kls = loss_terms(model_of(up, "half_closed"), up, key).kl
    assert isinstance(kls["z1"], vi.types.Drawn)  # p(z1 | z2) needs z2, which q draws after z1
    assert not isinstance(kls["z2"], vi.types.Drawn)
    kls = loss_terms(model_of(down, "closed"), down, key).kl
    assert not any(isinstance(kl, vi.types.Drawn) for kl in kls.values())
    with pytest.raises(ValueError, match=r"'z1' has no closed form.*\['z2'\].*half_closed"):
        loss_terms(model_of(up, "closed"), up, key)
    with pytest.raises(ValueError, match="kl is one of"):
        model_of(up, "open")
    loss = vi.losses.negative_elbo(model_of(up, "half_closed"))
    params = {"guide": other_params(up), "prior": jax.tree.map(as_float, PRIOR)}
    batch = as_float(X)[None]
    _, info = loss(params, key, batch, jnp.int32(0))
    assert set(info.metrics) == {"elbo", "log_lik", "kl", "beta", "kl_drawn/z1", "kl/z2"}
    parts = info.metrics["kl_drawn/z1"] + info.metrics["kl/z2"]
    np.testing.assert_allclose(info.metrics["kl"], parts, rtol=1e-5)


def independent(params, context, site):
    """The noise form: N(0, I) at every layer."""
    site("z2", gaussian(jnp.zeros(2), jnp.zeros(())))
    site("z1", gaussian(jnp.zeros(3), jnp.zeros(())), given=())


@pytest.mark.integration
def test_what_a_site_is_given_can_be_declared():
    kls = loss_terms(model_of(up, "closed", independent), up, jax.random.key(8)).kl
    assert not any(isinstance(kl, vi.types.Drawn) for kl in kls.values())


def lying(params, context, site):
    z2 = site("z2", gaussian(jnp.zeros(2), jnp.zeros(())))
    site("z1", gaussian(params["a"] @ z2, jnp.zeros(())), given=())


def test_what_is_declared_is_checked_by_the_gradient():
    z = {"z1": jnp.ones(3), "z2": jnp.ones(2)}
    params = jax.tree.map(as_float, PRIOR)
    assert undeclared(Program(params, None, independent), z) == []
    assert undeclared(Program(params, None, lying), z) == [("z1", "z2")]


def test_guide_and_prior_have_to_be_of_one_kind():
    one = gaussian(jnp.zeros(2), jnp.zeros(()))
    model = from_densities(
        lambda key: {}, lambda params, x: one, lambda params, x: prior(), None, None
    )
    with pytest.raises(ValueError, match="Programs both, or neither"):
        model.terms(jax.random.key(0), {}, X)


def test_the_kl_of_the_whole_is_no_closed_form():
    with pytest.raises(NotImplementedError, match="site by site"):
        vi.kl_divergence(prior(), prior())


@pytest.mark.integration
def test_guides_over_a_pytree_have_a_closed_kl():
    """That of their vectors, so that analytic_elbo takes them."""
    example = {"a": jnp.zeros(()), "b": jnp.zeros(2)}
    rows = {"loc": jnp.array([0.3, -1.0, 0.5]), "log_scale": jnp.array([0.1, -0.4, 0.2])}
    vector = vi.families.mean_field(3).guide(rows)
    tree = vi.families.mean_field(example).guide(rows)
    start = vi.families.full_rank(example)
    p = start.guide(start.init(jax.random.key(0)))
    kl = vi.kl_divergence(tree, p)
    np.testing.assert_allclose(kl, vi.kl_divergence(vector, p.base), rtol=1e-6)
    log_lik = lambda z: -(z["a"] ** 2) - (z["b"] ** 2).sum()  # noqa: E731
    value = vi.analytic_elbo(jax.random.key(1), log_lik, tree, p, num_samples=3)
    z = tree.sample(jax.random.key(1), (3,))
    np.testing.assert_allclose(value, jax.vmap(log_lik)(z).mean() - kl, rtol=1e-5)
    other = vi.families.mean_field({"c": jnp.zeros(3)})
    with pytest.raises(ValueError, match="over one space"):
        vi.kl_divergence(tree, other.guide(rows))


# --- the linter
# --------------------------------------------------------------------------------------------


def detached(params, context, site):
    """A path that is cut: the second site looks at a frozen copy of the first."""
    z2 = site("z2", gaussian(params["loc2"], params["scale2"]))
    site("z1", gaussian(params["a"] @ vi.freeze(z2), params["scale1"]))


@pytest.mark.integration
def test_the_linter_takes_programs():
    params = jax.tree.map(as_float, PRIOR)
    names = ("stein", "normalisation", "score", "detached")
    for walk, ok in ((top_down, True), (detached, False)):
        report = vi.check(
            jax.random.key(2),
            log_joint(params),
            lambda numbers, walk=walk: Program(numbers, None, walk),
            params=params,
            num_samples=512,
            only=names,
        )
        assert report.ok == ok, report


# --- at the exact posterior
# --------------------------------------------------------------------------------------------

PAIRS = {
    "stl": (vi.estimators.stl, [vi.bounds.elbo]),
    "dreg": (
        vi.estimators.dreg,
        [vi.bounds.iwae, functools.partial(vi.bounds.vr_iwae, alpha=0.3)],
    ),
    "gdreg": (vi.estimators.gdreg, [vi.bounds.elbo, vi.bounds.iwae]),
    "reparam": (
        vi.estimators.reparam,
        [
            vi.bounds.elbo,
            vi.bounds.iwae,
            functools.partial(vi.bounds.ciwae, beta=0.3),
            functools.partial(vi.bounds.jackknife, order=1),
            functools.partial(vi.bounds.miwae, num_groups=2),
            functools.partial(vi.bounds.renyi, alpha=0.5),
            functools.partial(vi.bounds.vr_iwae, alpha=0.3),
            functools.partial(vi.bounds.sumo, stop=2.0),
            vi.bounds.cubo,
            vi.bounds.eubo,
            vi.bounds.tvo,
            vi.bounds.vr_max,
        ],
    ),
    "score": (vi.estimators.score, [vi.bounds.elbo]),
    "vimco": (vi.estimators.vimco, [vi.bounds.iwae]),
}


@pytest.mark.cases(
    rest="slow",
    default=["up-stl", "down-score", "down-vimco"],
    integration=["up-dreg", "down-gdreg", "up-reparam"],
)
@pytest.mark.parametrize("name", sorted(PAIRS))
@pytest.mark.parametrize("walk", [up, down])
def test_every_bound_under_every_estimator_is_the_evidence(name, walk, x64):
    estimator, bounds = PAIRS[name]
    vanishes = name in ("stl", "dreg", "gdreg")  # the gradient of every draw

    @jax.jit
    def values_and_gradients(q, p, key):
        found = []
        for bound in bounds:
            value = lambda q, bound=bound: estimator(  # noqa: E731
                key, bound, log_joint(p), q, num_samples=4
            )
            found.append(jax.value_and_grad(value)(q) if vanishes else (value(q), ()))
        return found

    with jax.debug_key_reuse(False):  # one key for all bounds
        found = values_and_gradients(guide(walk), jax.tree.map(as_float, PRIOR), jax.random.key(9))
    assert len(found) == len(bounds)
    for value, gradient in found:
        np.testing.assert_allclose(value, log_evidence(), rtol=1e-12)
        for leaf in jax.tree.leaves(gradient):
            assert np.abs(leaf).max() < 1e-10


@pytest.mark.integration
@pytest.mark.parametrize("walk", [up, down])
def test_away_from_the_posterior_the_estimators_agree_in_the_mean(walk):
    """Sticking the landing freezes the guide's numbers and keeps its path through z: a density
    frozen inside one pass would also cut log q(z_l | z_<l) in the z before it.
    """
    params = other_params(walk)
    p = jax.tree.map(as_float, PRIOR)

    def gradient(estimator, key):
        def value(params):
            q = Program(params, None, walk)
            return estimator(key, vi.bounds.elbo, log_joint(p), q, num_samples=1)

        return jax.flatten_util.ravel_pytree(jax.grad(value)(params))[0]

    @jax.jit
    @jax.vmap
    def both(key):
        with jax.debug_key_reuse(False):
            return gradient(vi.estimators.stl, key), gradient(vi.estimators.reparam, key)

    with jax.debug_key_reuse(False):
        stl, plain = both(keys(10, 5_000))
    assert_mean(np.asarray(stl) - np.asarray(plain), np.zeros(stl.shape[1]))
