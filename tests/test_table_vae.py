"""The VAE of a table: what is masked changes no bit, a masked table is the smaller one; linear
Gaussian tables with missing entries, and their imputation, against the closed form.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import all_finite, assert_mean, keys, normal, tree_allclose, tree_equal
from scipy import stats
from test_models_laws import COLUMNS, one_of, table, table_rows

import vi_jax as vi
from vi_jax.diagnostics import amortised, imputation
from vi_jax.models.table_vae import Column, hide_entries, table_vae, with_starts

REAL = ("gaussian", "student_t", "log_normal")
COUNTS = {column.kind for column in COLUMNS if "poisson" in column.kind or "bin" in column.kind}

# --- a table of all kinds
# --------------------------------------------------------------------------------------------


@functools.cache
def mixed():
    """A model of all kinds of columns, away from its start."""
    model = table(hide=0.3)
    params = jax.jit(model.init)(jax.random.key(0))
    leaves, structure = jax.tree.flatten(params)
    moved = [
        leaf + 0.3 * jnp.asarray(normal(number, *leaf.shape), leaf.dtype)
        for number, leaf in enumerate(leaves)
    ]
    return model, jax.tree.unflatten(structure, moved)


@functools.cache
def everything():
    """x -> ELBO, training objective, IWAE, gradients, log p(x) and imputations."""
    model, params = mixed()
    losses = (
        vi.losses.negative_bound(table(), vi.bounds.iwae, vi.estimators.dreg, num_samples=3),
        vi.losses.negative_elbo(model),
    )

    @jax.jit
    def of(x):
        key = jax.random.key(1)
        found = [
            jax.value_and_grad(lambda p, loss=loss: loss(p, key, x, jnp.int32(0))[0])(params)
            for loss in losses
        ]
        terms = vi.losses.batch_terms(key, model, params, x)
        log_p = amortised.log_evidence(key, model, params, x, num_samples=4)
        filled = imputation.impute(key, model, params, x, num_samples=25, num_draws=2)
        return found, terms, log_p, filled

    return of, of(table_rows(4))


@pytest.mark.integration
@pytest.mark.parametrize("under", [np.nan, np.inf, -np.inf, -7.0, 1e30])
def test_what_is_masked_changes_no_bit(under, no_key_check):
    of, expected = everything()
    x = table_rows(4)
    masked = {**x, "values": jnp.where(x["observed"], x["values"], under)}
    assert all_finite(expected[:3])
    assert tree_equal(of(masked), expected)


@pytest.mark.integration
def test_what_is_observed_matters():
    """Each observed value moves log p(x | z), and the guide."""
    model, params = mixed()
    x = one_of({**table_rows(1), "observed": jnp.ones((1, len(COLUMNS)), bool)})
    z = jnp.array([0.3, -0.2])

    @jax.jit
    def both(values):
        given = {**x, "values": values}
        return model.densities.log_lik(params, given, z), model.densities.guide(params, given).mean

    is_real = np.array([column.kind in REAL for column in COLUMNS])
    flipped = (x["values"] == 0.0).astype(jnp.float32)
    other = jnp.where(is_real, 0.5 * jnp.abs(x["values"]) + 0.1, flipped)
    first = both(x["values"])
    for number in range(len(COLUMNS)):
        second = both(x["values"].at[number].set(other[number]))
        assert first[0] != second[0], COLUMNS[number]
        assert not np.array_equal(first[1], second[1]), COLUMNS[number]


@pytest.mark.integration
def test_exposure_multiplies_the_rates_of_counts_alone():
    model, params = mixed()
    x = one_of(table_rows(1))
    z = jnp.array([0.3, -0.2])

    @jax.jit
    def mean(exposure):
        given = {**x, "exposure": jnp.float32(exposure)}
        return model.densities.decode(params, given, z).mean

    is_count = np.array([column.kind in COUNTS for column in COLUMNS])
    np.testing.assert_allclose(mean(3.0) / mean(1.0), np.where(is_count, 3.0, 1.0), rtol=1e-5)


@pytest.mark.integration
def test_covariates_are_seen_by_encoder_and_decoder_and_not_by_the_prior():
    model, params = mixed()
    x = one_of(table_rows(1))
    other = {**x, "covariates": x["covariates"] + 1.0}
    z = jnp.array([0.3, -0.2])
    d = model.densities
    assert not np.allclose(d.guide(params, x).mean, d.guide(params, other).mean)
    assert not np.allclose(d.decode(params, x, z).mean, d.decode(params, other, z).mean)
    assert np.array_equal(d.prior(params, x).mean, d.prior(params, other).mean)


@pytest.mark.integration
def test_hiding_changes_the_encoder_alone():
    """At a share of nearly 1 the guide sees nothing, and the likelihood everything; so it is with
    entries of one's own choice.
    """
    model = table(hide=0.999999)
    params = mixed()[1]
    x = one_of(table_rows(1))
    unseen = {**x, "observed": jnp.zeros(len(COLUMNS), bool)}
    q = model.densities.guide(params, unseen)
    terms = jax.jit(model.train_terms)(jax.random.key(5), params, x)
    z = q.sample(jax.random.split(jax.random.key(5))[1])
    np.testing.assert_allclose(terms.log_lik, model.densities.log_lik(params, x, z), rtol=1e-6)
    np.testing.assert_allclose(
        terms.kl["z"].sum(), vi.kl_divergence(q, model.densities.prior(params, x)), rtol=1e-5
    )
    chosen = {**x, "seen": jnp.zeros(len(COLUMNS), bool)}
    np.testing.assert_array_equal(model.densities.guide(params, chosen).mean, q.mean)
    assert model.densities.log_lik(params, chosen, z) == model.densities.log_lik(params, x, z)


@pytest.mark.integration
def test_a_decoder_may_be_trained_by_the_whole_view_alone():
    """Its gradient is that of the ELBO; the encoder's is the sum of both bounds'."""
    columns = [Column("gaussian")] * 3
    x = {"values": jnp.array([0.5, -1.0, 2.0]), "observed": jnp.array([True, True, False])}
    sizes = dict(num_latents=2, hidden=(4,))
    both = table_vae(columns, hide=0.5, hide_trains_decoder=False, **sizes)
    hidden = table_vae(columns, hide=0.5, **sizes)
    params = jax.tree.map(lambda leaf: leaf + 0.3, both.init(jax.random.key(0)))

    def loss(terms, key):
        def of(params):
            found = terms(key, params, x)
            return found.kl["z"].sum() - found.log_lik + jnp.sum(jnp.asarray(found.penalty))

        return jax.jit(jax.grad(of))(params)

    key_whole, key_hidden = jax.random.split(jax.random.key(1))
    found = loss(both.train_terms, jax.random.key(1))
    of_whole = loss(both.terms, key_whole)
    of_hidden = loss(hidden.train_terms, key_hidden)
    for name in ("decoder", "likelihood"):
        assert tree_allclose(found[name], of_whole[name], rtol=1e-5, atol=1e-6)
    total = jax.tree.map(jnp.add, of_whole["encoder"], of_hidden["encoder"])
    assert tree_allclose(found["encoder"], total, rtol=1e-5, atol=1e-6)
    assert not tree_allclose(found["encoder"], of_whole["encoder"], rtol=1e-2)


def test_hidden_entries_are_a_share_of_those_observed():
    x = table_rows(2_000)
    seen = hide_entries(jax.random.key(0), x, 0.3)["seen"]
    assert not np.any(seen & ~x["observed"])
    assert_mean(np.asarray(seen)[np.asarray(x["observed"])], 0.7)


@pytest.mark.integration
def test_starts_are_the_marginals():
    """With z = 0 the decoder puts out the columns' means and frequencies."""
    rng = np.random.default_rng(0)
    num = 4_000
    x = table_rows(num)
    values = np.array(x["values"])
    observed = np.asarray(x["observed"])
    exposure = np.asarray(x["exposure"])
    for number, column in enumerate(COLUMNS):
        if column.kind in COUNTS:
            values[:, number] = rng.poisson(3.0 * exposure) * (rng.random(num) < 0.6)
    values = np.where(observed, values, np.nan)
    columns = with_starts(COLUMNS, values, observed, exposure)
    model = table_vae(columns, num_latents=2, hidden=(4,), has_exposure=True)
    params = jax.jit(model.init)(jax.random.key(0))
    given = {"values": x["values"][0], "observed": x["observed"][0], "exposure": jnp.float32(1.0)}
    p = model.densities.decode(params, given, jnp.zeros(2))
    for number, column in enumerate(columns):
        seen = values[observed[:, number], number]
        if column.kind in ("categorical", "ordinal", "bernoulli"):
            levels = max(column.num_levels, 2)
            shares = np.bincount(seen.astype(int), minlength=levels) / len(seen)
            np.testing.assert_allclose(p.probs[number, :levels], shares, atol=1e-3)
        elif column.kind == "student_t":
            np.testing.assert_allclose(p.mean[number], np.median(seen), atol=1e-6)
        elif column.kind == "gaussian":
            np.testing.assert_allclose(p.mean[number], seen.mean(), atol=1e-5)
        elif column.kind == "log_normal":
            expected = np.exp(np.log(seen).mean() + 0.5 * column.scale**2)
            np.testing.assert_allclose(p.mean[number], expected, rtol=1e-5)
        else:
            rate = seen.sum() / exposure[observed[:, number]].sum()
            np.testing.assert_allclose(p.mean[number], rate, rtol=1e-3)
    inflated = dict(enumerate(columns))[10]  # two fifths of zeros, and the Poisson's own
    np.testing.assert_allclose(1 / (1 + np.exp(-inflated.start[1])), 0.4, atol=0.03)


@pytest.mark.integration
def test_a_repeated_value_has_no_endless_density():
    """However small a scale is trained to be, min_scale bounds it."""
    columns = (Column("gaussian"), Column("student_t"), Column("log_normal", scale=0.5))
    x = {"values": jnp.array([0.0, 0.0, 1.0]), "observed": jnp.ones(3, bool)}
    for heteroscedastic in (False, True):
        model = table_vae(
            columns, num_latents=1, hidden=(), min_scale=0.02, heteroscedastic=heteroscedastic
        )
        params = model.init(jax.random.key(0))
        params["likelihood"] = jax.tree.map(lambda leaf: leaf - 80.0, params["likelihood"])
        found = model.densities.decode(params, x, jnp.zeros(1)).log_probs(x)
        bound = -np.log(np.sqrt(2 * np.pi) * 0.02 * np.array([1.0, 1.0, 0.5]))
        assert (np.asarray(found) <= bound + 1e-5).all()
        gradient = jax.grad(model.densities.log_lik)(params, x, jnp.ones(1))
        assert all_finite(gradient)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda: table_vae((), num_latents=2), "at least one column"),
        (lambda: table_vae((Column("gamma"),), num_latents=2), "a kind is one of gaussian"),
        (lambda: table_vae((Column("ordinal"),), num_latents=2), "num_levels of at least 2"),
        (lambda: table_vae((Column("gaussian", scale=0.0),), num_latents=2), "finite scale > 0"),
        (lambda: table_vae((Column("poisson", start=(1.0, 2.0)),), num_latents=2), "starts at 1"),
        (lambda: table_vae((Column("poisson"),), num_latents=0), "num_latents of at least 1"),
        (lambda: table_vae((Column("poisson"),), num_latents=1, hide=1.0), "hide from 0"),
        (lambda: with_starts((Column("poisson"),), np.ones((3, 2)), np.ones((3, 2))), r"\[N, 1\]"),
    ],
)
def test_what_cannot_be_is_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        bad()


def test_a_batch_or_a_missing_leaf_is_refused():
    model, params = mixed()
    x = table_rows(2)
    with pytest.raises(ValueError, match="vmap over a batch"):
        model.densities.guide(params, x)
    with pytest.raises(ValueError, match="exposure"):
        model.densities.guide(params, {k: v[0] for k, v in x.items() if k != "exposure"})
    with pytest.raises(ValueError, match="exposure and covariates"):
        model.densities.decode(params, None, jnp.zeros(2))


# --- a masked table is the smaller one
# --------------------------------------------------------------------------------------------


@pytest.mark.integration
def test_a_masked_elbo_is_that_of_the_table_without_these_columns():
    kinds = ("gaussian", "gaussian", "bernoulli", "gaussian", "bernoulli")
    keep = np.array([0, 2, 3])
    large = table_vae([Column(kind) for kind in kinds], num_latents=2, hidden=(4,))
    small = table_vae([Column(kinds[number]) for number in keep], num_latents=2, hidden=(4,))
    params = jax.jit(large.init)(jax.random.key(0))
    params = jax.tree.map(lambda leaf: leaf + 0.2, params)
    # features: gaussians 0, 1, 3, then bernoullis 2, 4, then the mask; outputs likewise
    seen = np.array([0, 2, 3, 5, 7, 8])
    first = params["encoder"]["Dense_0"]
    last = params["decoder"]["Dense_1"]
    outputs = np.array([0, 2, 3])
    of_small = {
        "encoder": {**params["encoder"], "Dense_0": {**first, "kernel": first["kernel"][seen]}},
        "decoder": {
            **params["decoder"],
            "Dense_1": {"kernel": last["kernel"][:, outputs], "bias": last["bias"][outputs]},
        },
        "likelihood": {
            "bernoulli": {},
            "gaussian": {
                "log_sigma": params["likelihood"]["gaussian"]["log_sigma"][np.array([0, 2])]
            },
        },
    }
    values = jnp.array([0.3, -2.0, 1.0, 0.7, 1.0])
    observed = jnp.array([True, False, True, True, False])
    key = jax.random.key(1)
    found = large.terms(key, params, {"values": values, "observed": observed})
    row = {"values": values[keep], "observed": jnp.ones(3, bool)}
    expected = small.terms(jax.random.clone(key), of_small, row)
    np.testing.assert_allclose(found.log_lik, expected.log_lik, rtol=1e-6)
    np.testing.assert_allclose(found.kl["z"], expected.kl["z"], rtol=1e-5)


# --- linear Gaussian tables with missing entries, in closed form
# --------------------------------------------------------------------------------------------

P = 5
D = 2
ROWS = 8


class Linear:
    """x = W z + b + sigma eps as a table: factor analysis, its posterior in closed form."""

    def __init__(self, dtype=jnp.float32):
        self.model = table_vae(
            [Column("gaussian")] * P,
            num_latents=D,
            hidden=(),
            min_scale=0.01,
            family=vi.families.full_rank,
        )
        self.w = 0.7 * normal(0, D, P)
        self.b = normal(1, P)
        self.sigma = 0.7 + 0.4 * np.abs(normal(2, P))
        rng = np.random.default_rng(3)
        x = rng.standard_normal((ROWS, D)) @ self.w + self.b
        x += self.sigma * rng.standard_normal((ROWS, P))
        self.observed = rng.random((ROWS, P)) < 0.6
        self.observed[0] = True
        self.observed[1] = False
        self.complete = x
        params = self.model.init(jax.random.key(0))
        params["decoder"]["Dense_0"] = {
            "kernel": jnp.asarray(self.w, dtype),
            "bias": jnp.asarray(self.b, dtype),
        }
        params["likelihood"]["gaussian"]["log_sigma"] = jnp.log(
            jnp.asarray(self.sigma - 0.01, dtype)
        )
        self.params = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), params)
        self.x = {
            "values": jnp.asarray(np.where(self.observed, x, np.nan), dtype),
            "observed": jnp.asarray(self.observed),
        }

    def posterior(self, row):
        """Mean and covariance of z given the observed entries of a row."""
        o = self.observed[row]
        w = self.w[:, o] / self.sigma[o] ** 2
        cov = np.linalg.inv(np.eye(D) + w @ self.w[:, o].T)
        return cov @ w @ (self.complete[row, o] - self.b[o]), cov

    def log_p(self):
        """log N(x_obs | b_obs, W_obs W_obs^T + diag(sigma_obs^2)) of every row."""
        cov = self.w.T @ self.w + np.diag(self.sigma**2)
        found = []
        for row in range(ROWS):
            o = self.observed[row]
            found.append(
                stats.multivariate_normal(self.b[o], cov[np.ix_(o, o)]).logpdf(
                    self.complete[row, o]
                )
                if o.any()
                else 0.0
            )
        return np.array(found)

    def conditional(self, row):
        """Mean and standard deviation of every entry given those observed."""
        mean, cov = self.posterior(row)
        full_mean = mean @ self.w + self.b
        full_std = np.sqrt(np.einsum("dp,de,ep->p", self.w, cov, self.w) + self.sigma**2)
        o = self.observed[row]
        return np.where(o, self.complete[row], full_mean), np.where(o, 0.0, full_std)


@pytest.mark.integration
def test_at_the_posterior_every_bound_is_log_p_of_what_is_observed(x64):
    linear = Linear(jnp.float64)
    for row, expected in enumerate(linear.log_p()):
        x = one_of(linear.x, row)
        mean, cov = linear.posterior(row)
        joint = vi.losses.log_joint(linear.model, linear.params, x)
        z = jnp.asarray(normal(row, 6, D))
        log_q = stats.multivariate_normal(mean, cov).logpdf(np.asarray(z))
        np.testing.assert_allclose(jax.vmap(joint)(z) - log_q, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.integration
def test_bounds_of_a_linear_table_are_below_log_p_and_approach_it(no_key_check):
    linear = Linear()
    model = linear.model
    log_p = linear.log_p()

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, 0))
    def log_w(key, x):
        q = model.densities.guide(linear.params, x)
        z = q.sample(key, (20_000,))
        joint = vi.losses.log_joint(model, linear.params, x)
        return jax.vmap(joint)(z) - jax.vmap(q.log_prob)(z)

    weights = np.asarray(log_w(keys(4, ROWS), linear.x), np.float64)
    # importance weights are unbiased for p(x_obs)
    assert_mean(np.exp(weights - log_p[:, None]).T, 1.0)
    iwae = [
        np.log(np.exp(weights.reshape(ROWS, -1, k) - log_p[:, None, None]).mean(2)).mean(1)
        for k in (1, 10, 1_000)
    ]
    assert (iwae[0] <= 1e-3).all()
    assert (np.diff(iwae, axis=0) >= -1e-3).all()
    variance = np.exp(weights - log_p[:, None]).var(1)
    assert (iwae[2] > -variance / 1_000 - 5 * (variance / 20_000) ** 0.5 - 1e-3).all()
    found = amortised.log_evidence(
        jax.random.key(5), model, linear.params, linear.x, num_samples=5_000, chunk=1_000
    )
    relative = np.exp(weights - log_p[:, None])
    stderr = relative.std(1) / 5_000**0.5
    assert (np.abs(found - log_p) < 5 * stderr + 1e-4).all()


@pytest.mark.integration
def test_imputations_of_a_linear_table_are_its_conditional_gaussians(no_key_check):
    linear = Linear()
    num = 4_000
    found = jax.jit(
        lambda key: imputation.impute(
            key, linear.model, linear.params, linear.x, num_samples=num, num_draws=400
        )
    )(jax.random.key(6))
    log_p = linear.log_p()
    for row in range(ROWS):
        mean, std = linear.conditional(row)
        n = float(found.effective_samples[row])
        assert 100 < n <= num + 1
        assert abs(found.log_evidence[row] - log_p[row]) < 5 * (1 / n - 1 / (num + 1)) ** 0.5 + 1e-4
        assert found.k_hat[row] < vi.diagnostics.k_threshold(num)
        np.testing.assert_allclose(found.mean[row], mean, atol=5 * std.max() / n**0.5 + 1e-5)
        np.testing.assert_allclose(found.std[row], std, atol=8 * std.max() / n**0.5 + 1e-5)
        missing = ~linear.observed[row]
        below, above = (
            stats.norm(mean[missing], std[missing]).cdf(np.asarray(end[row])[missing])
            for end in (found.lower, found.upper)
        )
        # a quantile's standard error, as a share, is sqrt(p (1 - p) / n)
        assert (np.abs(above - below - 0.9) < 5 * (2 * 0.05 * 0.95 / n) ** 0.5).all()
        assert (np.abs(below - 0.05) < 5 * (0.05 * 0.95 / n) ** 0.5).all()
        draws = np.asarray(found.draws[row])
        np.testing.assert_array_equal(
            draws[:, ~missing], np.tile(np.float32(linear.complete[row, ~missing]), (400, 1))
        )
        np.testing.assert_allclose(draws.mean(0), mean, atol=6 * std.max() / 100**0.5 + 1e-5)


@pytest.mark.integration
def test_imputed_classes_and_counts_are_those_of_the_model(no_key_check):
    """Everything missing: imputations are the model's own marginals, and log p(x) is 0."""
    model, params = mixed()
    x = table_rows(1)
    nothing = {**x, "observed": jnp.zeros((1, len(COLUMNS)), bool)}
    filled = jax.jit(
        lambda x: imputation.impute(
            jax.random.key(7), model, params, x, num_samples=500, num_draws=5
        )
    )
    found = filled(nothing)
    row = one_of(nothing)
    drawn = jax.jit(jax.vmap(lambda key: model.generate(key, params, row).mean))(keys(8, 1_000))
    bulk = np.array([c.kind not in ("log_normal",) for c in COLUMNS])
    stderr = np.asarray(drawn).std(0) / float(found.effective_samples[0]) ** 0.5
    off = np.abs(np.asarray(drawn).mean(0) - found.mean[0]) / stderr
    assert (off[bulk] < 6).all()
    assert abs(float(found.log_evidence[0])) < 5 / float(found.effective_samples[0]) ** 0.5
    np.testing.assert_allclose(
        found.probs[0].sum(-1),
        [float(c.kind in ("categorical", "bernoulli", "ordinal")) for c in COLUMNS],
        atol=1e-5,
    )
    complete = {**x, "observed": jnp.ones((1, len(COLUMNS)), bool)}
    complete["values"] = jnp.where(x["values"] == 0.0, 1.0, x["values"])
    back = filled(complete)
    for same in (back.mean, back.median, back.lower, back.upper, back.draws[:, 0]):
        np.testing.assert_array_equal(same, complete["values"])
    assert not np.any(back.std)


@pytest.mark.integration
def test_weighted_quantiles_are_those_of_repeated_samples():
    samples = normal(0, 7, 2)
    times = np.array([1, 3, 0, 2, 5, 1, 8])
    shares = np.array([0.05, 0.3, 0.5, 0.95])
    repeated = np.repeat(samples, times, 0)
    expected = np.quantile(repeated, shares, axis=0, method="inverted_cdf")
    found = imputation.weighted_quantiles(
        jnp.asarray(samples), jnp.asarray(times / times.sum()), jnp.asarray(shares)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_impute_refuses_too_few_samples():
    model, params = mixed()
    with pytest.raises(ValueError, match="at least 25"):
        imputation.impute(jax.random.key(0), model, params, table_rows(1), num_samples=10)
