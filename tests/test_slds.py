"""Switching linear dynamics: states by enumeration, the structured posterior against one in dense
matrices, exact evidence of all paths of states by Kalman filters, learning.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import all_finite, keys
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

import vi_jax as vi
from vi_jax import chains
from vi_jax.chains import Chain, Sites, StateChain, switching_learning
from vi_jax.models.slds import regimes_of
from vi_jax.models.table_vae import Column

N = 3
D = 2
K = 2
T = 4


def state_chain(num=4, num_states=3, seed=0):
    rng = np.random.default_rng(seed)
    start = rng.dirichlet(np.ones(num_states))
    moves = rng.dirichlet(np.ones(num_states), num_states)
    potentials = rng.standard_normal((num, num_states))
    return StateChain(*(jnp.asarray(a) for a in (np.log(start), np.log(moves), potentials)))


@pytest.mark.integration
def test_states_are_those_of_enumeration():
    with jax.enable_x64(True):
        of = state_chain()
        paths = np.array(list(itertools.product(range(3), repeat=4)))
        log_p = np.asarray(of.log_start)[paths[:, 0]]
        log_p = log_p + np.asarray(of.potentials)[np.arange(4), paths].sum(1)
        log_p += np.asarray(of.log_transition)[paths[:, :-1], paths[:, 1:]].sum(1)
        moments = jax.jit(StateChain.moments)(of)
        np.testing.assert_allclose(moments.log_z, logsumexp(log_p), rtol=1e-12)
        weight = np.exp(log_p - logsumexp(log_p))
        probs = np.stack([[weight[paths[:, s] == k].sum() for k in range(3)] for s in range(4)])
        np.testing.assert_allclose(moments.probs, probs, rtol=1e-10)
        moves = np.zeros((3, 3))
        for path, share in zip(paths, weight, strict=True):
            np.add.at(moves, (path[:-1], path[1:]), share)
        np.testing.assert_allclose(moments.moves, moves, rtol=1e-10)
        found = jax.jit(StateChain.log_prob)(of, jnp.asarray(paths))
        np.testing.assert_allclose(found, np.log(weight), rtol=1e-10)
        drawn = np.asarray(of.sample(jax.random.key(0), (4_000,)))
        shares = np.stack([(drawn == k).mean(0) for k in range(3)], axis=1)
        assert np.abs(shares - probs).max() < 5 * 0.5 / 4_000**0.5


def model_of(kind="gaussian", **options):
    options = {"num_latents": D, "num_states": K, "num_passes": 60, **options}
    return vi.models.slds([Column(kind)] * N, **options)


def params_of(model, seed=0):
    rng = np.random.default_rng(seed)
    params = model.init(jax.random.key(0))
    moved = jax.tree.map(lambda leaf: leaf + 0.2 * rng.standard_normal(leaf.shape), params)
    moved["loadings"] += jnp.asarray(rng.standard_normal((N, D)))
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), moved)


def trial(kind="gaussian", seed=1):
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((T, N)) if kind == "gaussian" else rng.poisson(1.0, (T, N))
    observed = rng.random((T, N)) < 0.8
    return {"values": jnp.asarray(values * observed, float), "observed": jnp.asarray(observed)}


def gaussian_sites(params, x):
    """h, J of a Gaussian likelihood in the path, and the constant of its log density."""
    sd = np.exp(np.asarray(params["likelihood"]["log_sigma"]))
    loadings = np.asarray(params["loadings"])
    seen = np.asarray(x["observed"])
    precision = np.where(seen, sd**-2.0, 0.0)
    off = np.asarray(x["values"]) - np.asarray(params["offset"])
    h = (precision * off) @ loadings
    J = np.einsum("tn,nd,ne->tde", precision, loadings, loadings)
    constant = np.where(seen, -0.5 * (off / sd) ** 2 - np.log(sd) - 0.5 * np.log(2 * np.pi), 0.0)
    return Sites(jnp.asarray(h), jnp.asarray(J)), constant.sum()


def evidence(params, x):
    """log p(x) by a Kalman filter for each path of states."""
    regimes = regimes_of(params)
    sites, constant = gaussian_sites(params, x)
    total = []
    for path in itertools.product(range(K), repeat=T - 1):
        which = np.array(path)
        # b_k as a third number that is always 1
        size = D + 1
        transition = np.zeros((T - 1, size, size))
        transition[:, :D, :D] = np.asarray(regimes.transition)[which]
        transition[:, :D, D] = np.asarray(regimes.offset)[which]
        transition[:, D, D] = 1.0
        noise = np.zeros((T - 1, size, size))
        noise[:, :D, :D] = np.asarray(regimes.noise)[which]
        mean = jnp.append(regimes.mean, 1.0)
        cov = jnp.zeros((size, size)).at[:D, :D].set(regimes.cov)
        wide = Sites(jnp.pad(sites.h, ((0, 0), (0, 1))), jnp.pad(sites.J, ((0, 0), (0, 1), (0, 1))))
        chain = Chain(mean, cov, jnp.asarray(transition), jnp.asarray(noise))
        log_p = regimes.log_start[which[0]]
        log_p += regimes.log_transition[which[:-1], which[1:]].sum()
        total.append(float(log_p + chains.log_normalizer(chain, wide)) + constant)
    return logsumexp(total)


def elbo_of(model, params, x):
    terms = model.terms(jax.random.key(0), params, x)
    return terms.log_lik - terms.kl["path"] - terms.kl["states"]


@pytest.mark.integration
def test_the_evidence_of_all_paths_of_states():
    """The ELBO is below it, and at it where the states do not matter or are one; importance
    samples reach it.
    """
    with jax.enable_x64(True):
        model = model_of()
        params = params_of(model)
        x = trial()
        exact = evidence(params, x)
        elbo = jax.jit(lambda p: elbo_of(model, p, x))(params)
        assert exact - 1.0 < elbo < exact - 1e-4

        @jax.jit
        def weights(params):
            of = model.densities
            q = of.guide(params, x)
            z = q.sample(jax.random.key(2), (4_000,))
            summed = jax.vmap(lambda z: of.log_weight(params, x, q, z))(z)
            joint = vi.losses.log_joint(model, params, x)
            return summed, jax.vmap(lambda z: joint(z) - q.log_prob(z))(z)

        for log_w in weights(params):
            w = np.exp(np.asarray(log_w) - exact)
            assert abs(w.mean() - 1.0) < 5 * w.std() / len(w) ** 0.5
            assert w.std() < 3.0
        alike = jax.tree.map(lambda leaf: leaf, params)
        for name in ("transition", "offset", "noise"):
            alike["dynamics"][name] = jax.tree.map(
                lambda leaf: jnp.broadcast_to(leaf[:1], leaf.shape), params["dynamics"][name]
            )
        np.testing.assert_allclose(
            jax.jit(lambda p: elbo_of(model, p, x))(alike), evidence(alike, x), rtol=1e-9
        )


def dense_posterior(params, x, num_rounds=300):
    """The structured mean field by coordinate ascent on dense matrices and enumerated states."""
    r = jax.tree.map(np.asarray, regimes_of(params))
    sites, constant = jax.tree.map(np.asarray, gaussian_sites(params, x))
    precisions = np.linalg.inv(r.noise)
    paths = np.array(list(itertools.product(range(K), repeat=T - 1)))
    log_p = r.log_start[paths[:, 0]] + r.log_transition[paths[:, :-1], paths[:, 1:]].sum(1)
    weight = np.exp(log_p)
    size = T * D
    for _ in range(num_rounds):
        probs = np.stack([[weight[paths[:, s] == k].sum() for k in range(K)] for s in range(T - 1)])
        joint = np.zeros((size, size))
        pull = np.zeros(size)
        joint[:D, :D] += np.linalg.inv(r.cov)
        pull[:D] += np.linalg.inv(r.cov) @ r.mean
        for t in range(T):
            own = slice(t * D, (t + 1) * D)
            joint[own, own] += sites.J[t]
            pull[own] += sites.h[t]
        for t, k in itertools.product(range(T - 1), range(K)):
            both = np.zeros((D, size))
            both[:, (t + 1) * D : (t + 2) * D] = np.eye(D)
            both[:, t * D : (t + 1) * D] = -r.transition[k]
            joint += probs[t, k] * both.T @ precisions[k] @ both
            pull += probs[t, k] * both.T @ precisions[k] @ r.offset[k]
        cov = np.linalg.inv(joint)
        mean = cov @ pull
        moves = np.zeros((T - 1, K))
        for t, k in itertools.product(range(T - 1), range(K)):
            both = np.zeros((D, size))
            both[:, (t + 1) * D : (t + 2) * D] = np.eye(D)
            both[:, t * D : (t + 1) * D] = -r.transition[k]
            moves[t, k] = multivariate_normal.logpdf(both @ mean, r.offset[k], r.noise[k])
            moves[t, k] -= 0.5 * np.trace(precisions[k] @ both @ cov @ both.T)
        log_w = log_p + moves[np.arange(T - 1), paths].sum(1)
        weight = np.exp(log_w - logsumexp(log_w))
    first = multivariate_normal.logpdf(mean[:D], r.mean, r.cov)
    first -= 0.5 * np.trace(np.linalg.inv(r.cov) @ cov[:D, :D])
    second = cov + np.outer(mean, mean)
    log_lik = constant + sites.h.ravel() @ mean
    for t in range(T):
        own = slice(t * D, (t + 1) * D)
        log_lik -= 0.5 * np.sum(sites.J[t] * second[own, own])
    entropy = 0.5 * (size * np.log(2 * np.pi * np.e) + np.linalg.slogdet(cov)[1])
    elbo = log_lik + entropy + first + logsumexp(log_w)
    return elbo, mean.reshape(T, D), cov, probs


@pytest.mark.integration
def test_the_structured_posterior_is_that_in_dense_matrices():
    with jax.enable_x64(True):
        model = model_of()
        params = params_of(model, seed=3)
        x = trial()
        q = jax.jit(model.densities.guide)(params, x)
        elbo, mean, cov, probs = dense_posterior(params, x)
        np.testing.assert_allclose(elbo_of(model, params, x), elbo, rtol=1e-9)
        np.testing.assert_allclose(q.path.mean, mean, atol=1e-6)
        variance = np.diag(cov).reshape(T, D)
        np.testing.assert_allclose(q.path.variance, variance, rtol=1e-6)
        np.testing.assert_allclose(q.states.mean, probs, atol=1e-6)


@pytest.mark.slow
def test_passes_never_lose_and_garbage_changes_nothing():
    model = model_of("poisson", num_passes=15)
    params = jax.tree.map(lambda leaf: leaf + 0.1, model.init(jax.random.key(0)))
    x = jax.tree.map(lambda leaf: leaf.astype(jnp.result_type(leaf, jnp.float32)), trial("poisson"))
    x["observed"] = x["observed"] > 0
    other = {**x, "values": jnp.where(x["observed"], x["values"], jnp.nan)}
    run = jax.jit(
        lambda x: (model.terms(jax.random.key(0), params, x), model.densities.guide(params, x))
    )
    first = run(x)
    jax.tree.map(np.testing.assert_array_equal, first, run(other))
    assert float(first[1].gain) >= 0.0
    found = vi.models.slds([Column("poisson")] * N, num_latents=D, num_states=K, num_passes=2)
    fewer = jax.jit(lambda x: elbo_of(found, params, x))(x)
    assert elbo_of(model, params, x) >= fewer


@pytest.mark.slow
def test_learning_never_descends_and_is_the_optimum():
    """Expectation-maximisation of simulated trials; an M-step is the optimum of its statistics."""
    with jax.enable_x64(True):
        model = model_of("poisson", forget=1.0, num_passes=12)
        made = vi.models.slds([Column("poisson")] * N, num_latents=D, num_states=K)
        params = params_of(model_of("poisson"))
        params["loadings"] = 0.3 * params["loadings"]
        shape = {"values": jnp.zeros((12, N)), "observed": jnp.ones((12, N), bool)}

        def one(key):
            key_z, key_x = jax.random.split(key)
            return made.generate(key_z, params, shape).sample(key_x)

        x = jax.jit(jax.vmap(one))(keys(3, 16))
        x = {**x, "values": x["values"].astype(float)}
        start = model.init(jax.random.key(5))
        start = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), start)
        fit = vi.conjugate.em(jax.random.key(0), model, x, num_iterations=25, params=start)
        assert np.diff(fit.elbo).min() > -1e-3
        assert fit.elbo[-1] > fit.elbo[0] + 1.0
    present = regimes_of(start)
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        stats = simulated_stats(rng, present)
        found = switching_learning.regimes_of(stats, present)
        best = expected_log_density(found, stats)
        assert best > expected_log_density(present, stats)
        for _ in range(5):
            moved = found._replace(
                transition=found.transition + 1e-2 * rng.standard_normal((K, D, D)),
                offset=found.offset + 1e-2 * rng.standard_normal((K, D)),
            )
            assert expected_log_density(moved, stats) < best


def simulated_stats(rng, present):
    z = rng.standard_normal((400, D))
    one = chains.Smoothed(
        jnp.asarray(z), jnp.zeros((400, D, D)), jnp.zeros((399, D, D)), jnp.zeros(())
    )
    potentials = jnp.asarray(rng.standard_normal((399, K)))
    states = StateChain(present.log_start, present.log_transition, potentials)
    return switching_learning.regime_stats(states.moments(), one)


def expected_log_density(regimes, stats):
    """Of the moves, by their statistics."""
    total = 0.0
    for k in range(K):
        both = jnp.concatenate([regimes.transition[k], regimes.offset[k][:, None]], axis=1)
        across = both @ stats.across[k].T
        second = stats.after[k] - across - across.T + both @ stats.before[k] @ both.T
        precision = jnp.linalg.inv(regimes.noise[k])
        log_det = jnp.linalg.slogdet(regimes.noise[k])[1]
        total += -0.5 * jnp.trace(precision @ second) - 0.5 * stats.weight[k] * log_det
    return float(total)


@pytest.mark.integration
def test_moves_that_are_never_made_keep_a_finite_probability():
    """However often their share is learned: it falls by a factor each time."""
    present = regimes_of(jax.jit(model_of("poisson").init)(jax.random.key(0)))
    zeros = jnp.zeros((K, K)).at[0].set(1.0)
    second = jnp.broadcast_to(jnp.eye(D + 1), (K, D + 1, D + 1))
    stats = switching_learning.RegimeStats(
        *(jnp.zeros(D), jnp.eye(D), jnp.eye(K)[0], zeros @ jnp.diag(jnp.eye(K)[0])),
        *(jnp.ones(K), second, second[:, :D], second[:, :D, :D]),
    )
    learn = jax.jit(switching_learning.regimes_of)
    for _ in range(20):
        present = learn(stats, present)
    assert all_finite(present)
    assert present.log_start[1] < -80.0


@pytest.mark.integration
def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="num_states of at least 1"):
        model_of(num_states=0)
    model = model_of("poisson")
    short = {"values": jnp.zeros((1, N)), "observed": jnp.ones((1, N), bool)}
    with pytest.raises(ValueError, match="two steps"):
        jax.eval_shape(lambda p: model.terms(None, p, short), model.init(jax.random.key(0)))
