"""Local latents: exact gradients by enumeration, exact posteriors, and rows that wait untouched."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest

import vi_jax as vi
from vi_jax.local.guide import BatchGuide
from vi_jax.local.schedule import slower_slopes
from vi_jax.optimise import row_optimisers

NUM = 24
TAU = 1.0
SIGMA = 0.7
RNG = np.random.default_rng(0)
X = jnp.asarray(2.0 + TAU * RNG.normal(size=NUM) + SIGMA * RNG.normal(size=NUM), jnp.float32)


def log_prior(mu):
    return dist.Normal(0.0, 5.0).log_prob(mu).sum()


def log_joint(mu, z, x):
    return dist.Normal(mu[0], TAU).log_prob(z[:, 0]) + dist.Normal(z[:, 0], SIGMA).log_prob(x)


def hierarchy(batch_size):
    return vi.targets.from_local_rows(log_prior, log_joint, X, 1, 1, batch_size=batch_size)


def model(x, batch_size):
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    with numpyro.plate("rows", NUM, subsample_size=batch_size):
        z = numpyro.sample("z", dist.Normal(mu, TAU))
        numpyro.sample("x", dist.Normal(z, SIGMA), obs=numpyro.subsample(x, 0))


def exact():
    """Mean [N + 1] and covariance of (mu, z), and the log evidence: all Gaussian."""
    precision = np.zeros((NUM + 1, NUM + 1))
    x = np.asarray(X, np.float64)
    precision[0, 0] = 1 / 25 + NUM / TAU**2
    precision[0, 1:] = precision[1:, 0] = -1 / TAU**2
    precision[1:, 1:] = np.eye(NUM) * (1 / TAU**2 + 1 / SIGMA**2)
    covariance = np.linalg.inv(precision)
    marginal = np.eye(NUM) * (TAU**2 + SIGMA**2) + 25
    evidence = (
        -0.5 * x @ np.linalg.solve(marginal, x) - 0.5 * np.linalg.slogdet(2 * np.pi * marginal)[1]
    )
    return covariance @ np.concatenate([[0], x / SIGMA**2]), covariance, evidence


MEAN, COVARIANCE, EVIDENCE = exact()
ROW_SD = COVARIANCE[1, 1] ** 0.5
SLOPE = COVARIANCE[0, 1] / COVARIANCE[0, 0] ** 0.5  # of z_n in the standardised mu


def exact_guide(guides):
    """Parameters of q(mu) and of the coupled rows at the posterior."""
    theta = {"loc": MEAN[:1], "log_diag": 0.5 * np.log(COVARIANCE[:1, 0]), "lower": np.zeros(0)}
    given = np.full((NUM, 1), 0.5 * np.log(ROW_SD**2 - SLOPE**2))
    rows = {"loc": MEAN[1:, None], "log_scale": given, "slope": np.full((NUM, 1, 1), SLOPE)}
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), (theta, rows))


@pytest.mark.integration
def test_at_the_posterior_every_draw_of_all_rows_gives_the_evidence():
    target = hierarchy(NUM)
    guides = vi.methods.coupled_table()
    theta, rows = exact_guide(guides)
    index = jnp.arange(NUM)
    q = BatchGuide(
        vi.families.full_rank(1).guide(theta), rows, target.rows(index), guides, 1, NUM, 1.0
    )
    u, v = q.sample(jax.random.key(0), (50,))
    values = jax.vmap(lambda u, v: target.batch_log_joint(u, v, index) - q.log_prob((u, v)))(u, v)
    np.testing.assert_allclose(values, EVIDENCE, rtol=1e-4)


@pytest.mark.cases(rest=None, slow=["table"])
@pytest.mark.integration
@pytest.mark.parametrize(
    "name", ["table", "coupled_table", pytest.param("encoder", marks=pytest.mark.slow)]
)
def test_the_mean_over_all_batches_is_the_gradient_of_all_rows(name):
    """The draws of a batch are made those that its rows have in the whole, so that the identity is
    exact.
    """
    num = 4
    size = 2
    target = vi.targets.from_local_rows(log_prior, log_joint, X[:num], 1, 1, batch_size=size)
    eps_u = jax.random.normal(jax.random.key(1), (1,))
    eps = jax.random.normal(jax.random.key(2), (num, 1))
    if name == "encoder":
        guides = vi.methods.encoder(
            lambda key: jnp.zeros(3),
            lambda p, x, u: {"loc": p[:1] * x + p[1] * u, "log_scale": p[2:]},
        )
        params = jnp.array([0.3, -0.2, 0.1])
    else:
        guides = getattr(vi.methods, name)()
        one = guides.init(jax.random.key(0), 1, 1)
        params = jax.tree.map(
            lambda x: 0.3 * jax.random.normal(jax.random.key(x.size), (num, *x.shape)), one
        )
    theta = {"loc": jnp.array([0.4]), "log_diag": jnp.array([-0.3]), "lower": jnp.zeros(0)}

    def term(theta, params, index):
        shared = vi.families.full_rank(1).guide(theta)
        own = jax.tree.map(lambda x: x[index], params) if guides.table else params
        q = BatchGuide(shared, own, target.rows(index), guides, 1, len(index), num / len(index))
        u = shared.loc + shared.scale_tril @ eps_u
        rows = q._rows_given(u).base_dist
        z = (u, rows.loc + rows.scale * eps[index])
        scale = num / len(index)
        return target.log_global(u) + scale * target.log_rows(*z, index).sum() - q.log_prob(z)

    batches = jnp.array(list(itertools.combinations(range(num), size)))
    terms = jax.vmap(jax.value_and_grad(term, (0, 1)), (None, None, 0))(theta, params, batches)
    whole = jax.value_and_grad(term, (0, 1))(theta, params, jnp.arange(num))
    assert terms[0].std() > 0.1
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a.mean(0), b, rtol=1e-4, atol=1e-4), terms, whole
    )


@pytest.mark.integration
@pytest.mark.parametrize(
    ("source", "batch_size"),
    [
        pytest.param("rows", 7, marks=pytest.mark.slow),
        pytest.param("rows", NUM, marks=pytest.mark.slow),
        ("numpyro", 5),
    ],
)
def test_a_gaussian_hierarchy_is_found_with_batches_of_any_size(source, batch_size):
    if source == "rows":
        target = hierarchy(batch_size)
    else:
        target = vi.targets.from_numpyro(model, X, batch_size)
    result = vi.fit(jax.random.key(0), target, num_draws=1000)
    d = result.diagnostics
    q = result.guide
    assert result.converged
    sd = COVARIANCE[0, 0] ** 0.5
    assert abs(float(q.shared.mean[0]) - MEAN[0]) < 0.2 * sd
    assert abs(float(q.shared.covariance_matrix[0, 0]) ** 0.5 / sd - 1) < 0.1
    np.testing.assert_allclose(q.params["loc"][:, 0], MEAN[1:], atol=0.2 * ROW_SD)
    np.testing.assert_allclose(
        np.hypot(q.params["slope"][:, 0, 0], np.exp(q.params["log_scale"][:, 0])), ROW_SD, rtol=0.15
    )
    assert abs(d.log_evidence - EVIDENCE) < 0.05
    assert d.elbo - 5 * d.elbo_stderr < EVIDENCE + 0.01
    assert d.verdict == "reliable"
    assert d.rows_checked == NUM
    moments = result.moments(jax.random.key(1), 1000)
    mu = moments["mean"]["mu"] if source == "numpyro" else moments["mean"][0]
    assert abs(mu - MEAN[0]) < 0.1 * sd + 5 * sd / 1000**0.5
    z = result.sample(jax.random.key(2), 10, rows=[3, 1])[1]
    assert jax.tree.leaves(z)[0].shape[:2] == (10, 2)


@pytest.mark.slow
def test_one_row_at_a_time():
    result = vi.fit(jax.random.key(0), hierarchy(1), num_draws=1000)
    assert result.converged
    np.testing.assert_allclose(result.guide.params["loc"][:, 0], MEAN[1:], atol=0.4 * ROW_SD)
    assert abs(result.diagnostics.log_evidence - EVIDENCE) < 0.05


@pytest.mark.slow
def test_a_plain_table_is_too_narrow_and_the_weights_mend_it():
    result = vi.fit(
        jax.random.key(0),
        hierarchy(NUM),
        vi.methods.local_advi(guides=vi.methods.table()),
        num_draws=1000,
    )
    mean_field_sd = (1 / 25 + NUM / TAU**2) ** -0.5  # of mu given all z: what a table can say
    sd = COVARIANCE[0, 0] ** 0.5
    assert abs(float(result.guide.shared.covariance_matrix[0, 0]) ** 0.5 / mean_field_sd - 1) < 0.1
    moments = result.moments(jax.random.key(1), 100)
    assert moments["corrected"]
    assert abs(moments["sd"][0] / sd - 1) < 0.15
    assert mean_field_sd < 0.85 * sd


@pytest.mark.slow
def test_probabilistic_pca_with_an_encoder():
    """x = W z + noise, W known: z given x is Gaussian, linear in x; theta is the mean of x."""
    num = 60
    w = jnp.array([[1.0, 0.5], [-0.3, 1.2], [0.8, -0.6]])
    keys = jax.random.split(jax.random.key(5), 2)
    x = (
        jax.random.normal(keys[0], (num, 2)) @ w.T
        + 0.5 * jax.random.normal(keys[1], (num, 3))
        + 1.0
    )

    def prior(mu):
        return dist.Normal(0.0, 3.0).log_prob(mu).sum()

    def joint(mu, z, rows):
        return dist.Normal().log_prob(z).sum(1) + dist.Normal(mu + z @ w.T, 0.5).log_prob(rows).sum(
            1
        )

    target = vi.targets.from_local_rows(prior, joint, x, 3, 2, batch_size=20)

    def init(key):
        return {
            "w": jnp.zeros((2, 6)),
            "lower": jnp.zeros(1),
            "log_diag": jnp.zeros(2),
            "b": jnp.zeros(2),
        }

    def apply(p, row, u):
        return {
            "loc": p["w"] @ jnp.concatenate([row, u]) + p["b"],
            "log_diag": p["log_diag"],
            "lower": p["lower"],
        }

    guides = vi.methods.encoder(init, apply, vi.families.full_rank)
    method = vi.methods.local_advi(
        guides=guides, estimator=vi.estimators.stl, encoder_optimizer=optax.adam(0.02)
    )
    result = vi.fit(jax.random.key(0), target, method, num_draws=1000)
    assert result.converged
    precision = np.eye(2) + np.asarray(w.T @ w) / 0.25
    gain = np.linalg.solve(precision, np.asarray(w.T)) / 0.25  # E[z | x, mu] = gain (x - mu)
    np.testing.assert_allclose(
        result.guide.params["w"], np.concatenate([gain, -gain], 1), atol=0.05
    )
    tril = (
        vi.families.full_rank(2)
        .guide({**apply(result.guide.params, x[0], jnp.zeros(3))})
        .scale_tril
    )
    np.testing.assert_allclose(tril @ tril.T, np.linalg.inv(precision), rtol=0.1, atol=0.01)
    marginal = np.asarray(w @ w.T) + 0.25 * np.eye(3)
    covariance = np.linalg.inv(np.eye(3) / 9 + num * np.linalg.inv(marginal))
    mean = covariance @ np.linalg.solve(marginal, np.asarray(x, np.float64).sum(0))
    sd = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose((result.guide.shared.mean - mean) / sd, 0, atol=0.2)
    np.testing.assert_allclose(
        np.sqrt(np.diag(result.guide.shared.covariance_matrix)) / sd, 1, atol=0.1
    )
    assert result.diagnostics.verdict == "reliable"


@pytest.mark.integration
def test_rows_outside_of_a_batch_wait_and_those_in_it_go_as_if_alone():
    rule = optax.adam(0.1)
    num = 5
    one = {"loc": jnp.zeros(2), "log_scale": jnp.zeros(2)}
    rows = row_optimisers.begin(rule, one, num)
    curvature = jnp.arange(1.0, num + 1)

    def slope(p, n):
        return {"loc": curvature[n] * (p["loc"] - 1.0), "log_scale": jnp.exp(p["log_scale"]) - 0.5}

    visits = [[0, 3], [3, 4], [0, 3]]
    before = rows
    for index in map(jnp.array, visits):
        entry = row_optimisers.take(rows, index, jnp.int32(0))
        entry = row_optimisers.move(rule, entry, jax.vmap(slope)(entry.params, index), jnp.ones(()))
        rows = row_optimisers.put(rows, index, entry, jnp.bool_(True))
    for leaf, old in zip(jax.tree.leaves(rows), jax.tree.leaves(before), strict=True):
        np.testing.assert_array_equal(leaf[jnp.array([1, 2])], old[jnp.array([1, 2])])

    for n, times in ((0, 2), (3, 3), (4, 1)):  # Adam on the one row, its units unrolled by hand
        p = one
        state = rule.init(one)
        path = []
        for _ in range(times):
            scale = jnp.exp(p["log_scale"])
            g = slope(p, n)
            update, state = rule.update({**g, "loc": scale * g["loc"]}, state)
            p = {
                "loc": p["loc"] + scale * update["loc"],
                "log_scale": p["log_scale"] + update["log_scale"],
            }
            path.append(p["loc"])
        np.testing.assert_allclose(rows.params["loc"][n], p["loc"], rtol=1e-5)
        average = path[0]
        for t, x in enumerate(path[1:], 2):
            average = average + 4 / (t + 3) * (x - average)
        np.testing.assert_allclose(rows.average["loc"][n], average, rtol=1e-5)
        assert int(rows.visits[n]) == times

    # the next stage starts at the average
    later = row_optimisers.take(rows, jnp.array([3]), jnp.int32(1))
    np.testing.assert_array_equal(later.params["loc"][0], rows.average["loc"][3])
    assert int(later.visits[0]) == 0


@pytest.mark.integration
def test_what_does_not_fit_is_said():
    with pytest.raises(ValueError, match="local_advi"):
        vi.fit(jax.random.key(0), hierarchy(4), vi.methods.advi())
    with pytest.raises(ValueError, match="local latent variables"):
        vi.fit(
            jax.random.key(0),
            vi.targets.from_log_density(lambda u: -u @ u, 2),
            vi.methods.local_advi(),
        )
    with pytest.raises(ValueError, match="start expects shape"):
        vi.fit(jax.random.key(0), hierarchy(4), start=jnp.zeros(2))
    result = vi.fit(
        jax.random.key(0), hierarchy(4), vi.methods.local_advi(num_steps=20), num_draws=100
    )
    assert result.diagnostics.verdict == "not converged"
    report = json.loads(json.dumps(result.report(), allow_nan=False))
    assert report["verdict"] == "not converged"
    assert report["num_steps"] == 20
    arviz = pytest.importorskip("arviz")
    data = result.to_arviz(jax.random.key(3), 50, rows=[2, 0])
    assert data.posterior["z"].shape == (1, 50, 2, 1)
    assert float(arviz.ess(data)["theta"].max()) > 10


@pytest.mark.parametrize(("num_rows", "share"), [(5, 1.0), (1_000, 0.1), (100_000, 0.01)])
def test_slopes_of_many_rows_move_slowly_and_nothing_else_does(num_rows, share):
    rule = slower_slopes(num_rows)
    updates = {"loc": jnp.ones(2), "log_scale": jnp.ones(2), "slope": jnp.ones((2, 3))}
    found, _ = rule.update(updates, rule.init(updates), updates)
    np.testing.assert_allclose(found["slope"], share, rtol=1e-6)
    np.testing.assert_array_equal(found["loc"], 1.0)
    np.testing.assert_array_equal(found["log_scale"], 1.0)
