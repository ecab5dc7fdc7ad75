"""Targets whose rows have latents of their own: batches of every size average to the whole,
whatever the model is written in.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints
from scipy.special import comb

import vi_jax as vi
from vi_jax.targets import LocalTarget, TargetError
from vi_jax.targets._subsets import subset

NUM = 6
X = jax.random.normal(jax.random.key(0), (NUM, 3)) + jnp.arange(NUM)[:, None]


def log_prior(theta):
    return dist.Normal(0.0, 3.0).log_prob(theta["mu"]).sum() + dist.HalfNormal(2.0).log_prob(
        theta["tau"]
    )


def log_joint(theta, z, rows):
    prior = dist.Normal(theta["mu"], theta["tau"]).log_prob(z["a"]).sum(1) + dist.Gamma(
        2.0, 3.0
    ).log_prob(z["s"])
    return prior + dist.Normal(z["a"][:, :1] + z["a"][:, 1:], z["s"][:, None]).log_prob(rows).sum(1)


def by_rows(batch_size):
    shared = {"mu": jnp.zeros(2), "tau": jnp.ones(())}
    row = {"a": jnp.zeros(2), "s": jnp.ones(())}
    return vi.targets.from_local_rows(
        log_prior,
        log_joint,
        X,
        shared,
        row,
        {"mu": None, "tau": constraints.positive},
        {"a": None, "s": constraints.positive},
        batch_size=batch_size,
    )


def model(x, batch_size):
    mu = numpyro.sample("mu", dist.Normal(0.0, 3.0).expand([2]).to_event(1))
    tau = numpyro.sample("tau", dist.HalfNormal(2.0))
    numpyro.deterministic("twice", 2 * tau)
    with (
        numpyro.plate("entries", 3, dim=-1),
        numpyro.plate("rows", NUM, subsample_size=batch_size, dim=-2),
    ):
        rows = numpyro.subsample(x, 0)
        e = numpyro.sample("e", dist.Normal(mu[0], tau))
        numpyro.sample("x", dist.Normal(e, 1.0), obs=rows)


def plain_model(x, batch_size):
    mu = numpyro.sample("mu", dist.Normal(0.0, 3.0).expand([2]).to_event(1))
    tau = numpyro.sample("tau", dist.HalfNormal(2.0))
    numpyro.deterministic("twice", 2 * tau)
    with numpyro.plate("rows", NUM, subsample_size=batch_size):
        rows = numpyro.subsample(x, 1)
        a = numpyro.sample("a", dist.Normal(mu, tau).to_event(1))
        s = numpyro.sample("s", dist.Gamma(2.0, 3.0))
        numpyro.sample("x", dist.Normal(a[:, :1] + a[:, 1:], s[:, None]).to_event(1), obs=rows)


def from_model(f, batch_size):
    return vi.targets.from_numpyro(f, X, batch_size)


@pytest.mark.integration
@pytest.mark.parametrize("batch_size", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_the_mean_over_all_batches_is_the_whole_and_so_is_its_gradient(batch_size):
    target = by_rows(batch_size)
    u = jax.random.normal(jax.random.key(1), (target.size,))
    v = jax.random.normal(jax.random.key(2), (NUM, target.local_size))
    whole = target.whole()
    joint = jnp.concatenate([u, v.ravel()])
    value, slope = jax.value_and_grad(whole.log_density)(joint)

    def on(index, u, v):
        return target.batch_log_joint(u, v[index], index)

    batches = jnp.array(list(itertools.combinations(range(NUM), batch_size)))
    values, slopes = jax.vmap(jax.value_and_grad(on, (1, 2)), (0, None, None))(batches, u, v)
    np.testing.assert_allclose(values.mean(), value, rtol=1e-5)
    assert values.std() > 1
    mean_slope = jnp.concatenate([slopes[0].mean(0), slopes[1].mean(0).ravel()])
    np.testing.assert_allclose(mean_slope, slope, rtol=1e-4, atol=1e-4)
    missing = np.array([[n not in batch for n in range(NUM)] for batch in np.asarray(batches)])
    assert np.all(np.asarray(slopes[1])[missing] == 0), "rows outside of a batch have no gradient"


@pytest.mark.integration
def test_the_whole_is_the_model_written_out():
    target = by_rows(4)
    whole = target.whole()
    z = whole.constrain(jax.random.normal(jax.random.key(3), (whole.size,)))
    assert z["z"]["a"].shape == (NUM, 2)
    expected = log_prior(z["theta"]) + log_joint(z["theta"], z["z"], X).sum()
    log_det = jnp.log(z["theta"]["tau"]) + jnp.log(z["z"]["s"]).sum()
    u = jax.random.normal(jax.random.key(3), (whole.size,))
    np.testing.assert_allclose(whole.log_density(u), expected + log_det, rtol=1e-5)
    assert whole.names[:3] == ("mu[0]", "mu[1]", "tau")
    assert len(whole.names) == whole.size


@pytest.mark.integration
def test_a_subsampled_plate_with_latents_is_the_same_target():
    ours = by_rows(4)
    theirs = from_model(plain_model, 4)
    assert isinstance(theirs, LocalTarget)
    assert (theirs.names, theirs.local_names) == (ours.names, ours.local_names)
    u = jax.random.normal(jax.random.key(1), (3,))
    v = jax.random.normal(jax.random.key(2), (4, 3))
    index = jnp.array([5, 0, 2, 3])
    np.testing.assert_allclose(theirs.log_global(u), ours.log_global(u), rtol=1e-5)
    np.testing.assert_allclose(theirs.log_rows(u, v, index), ours.log_rows(u, v, index), rtol=1e-5)
    np.testing.assert_allclose(
        theirs.constrain_rows(u, v, index)["s"], ours.constrain_rows(u, v, index)["s"]
    )
    np.testing.assert_allclose(theirs.constrain(u)["twice"], 2 * theirs.constrain(u)["tau"])


@pytest.mark.integration
def test_a_plate_within_a_plate():
    target = from_model(model, 2)
    assert target.local_names == ("e[0]", "e[1]", "e[2]")
    u = jnp.array([0.1, 0.2, 0.3])
    v = jax.random.normal(jax.random.key(2), (2, 3))
    index = jnp.array([4, 1])
    terms = dist.Normal(0.1, jnp.exp(0.3)).log_prob(v) + dist.Normal(v, 1.0).log_prob(X[index])
    np.testing.assert_allclose(target.log_rows(u, v, index), terms.sum(1), rtol=1e-5)


def test_what_has_no_such_target_says_so():
    def only_local():
        with numpyro.plate("rows", 6, subsample_size=2):
            numpyro.sample("z", dist.Normal())

    def by_row():
        tau = numpyro.sample("tau", dist.HalfNormal(2.0))
        with numpyro.plate("rows", 6, subsample_size=2) as index:
            numpyro.sample("z", dist.TruncatedNormal(low=index * 1.0, loc=tau))

    def two_plates():
        with numpyro.plate("a", 6, subsample_size=2, dim=-1):
            numpyro.sample("z", dist.Normal())
        with numpyro.plate("b", 6, subsample_size=2, dim=-1):
            numpyro.sample("w", dist.Normal())

    with pytest.raises(TargetError, match="no latent in common"):
        vi.targets.from_numpyro(only_local)
    with pytest.raises(TargetError, match="'z' depends on another latent or on the row"):
        vi.targets.from_numpyro(by_row)
    with pytest.raises(TargetError, match="need one subsampled plate"):
        vi.targets.from_numpyro(two_plates)
    with pytest.raises(TargetError, match="one number a row"):
        vi.targets.from_local_rows(
            lambda t: -t @ t, lambda t, z, rows: -jnp.sum(z), X, 2, 1, batch_size=2
        )


def rows_by(take, batch_size):
    def model(x):
        mu = numpyro.sample("mu", dist.Normal(0.0, 3.0))
        with numpyro.plate("rows", 100, subsample_size=batch_size) as index:
            z = numpyro.sample("z", dist.Normal(mu, 1.0))
            numpyro.sample("x", dist.Normal(z, 0.5), obs=take(x, index))

    return model


@pytest.mark.parametrize(
    ("take", "num", "batch_size"),
    [
        pytest.param(lambda x, index: x[:25], 100, 25, id="cut"),
        pytest.param(lambda x, index: x, 25, 25, id="handed a batch"),
        pytest.param(lambda x, index: x[:1], 100, 1, id="one row, which broadcasts"),
    ],
)
def test_data_of_one_batch_are_not_taken_for_all_rows(take, num, batch_size):
    with pytest.raises(TargetError, match=r"does not run with all rows of its plate 'rows'.*'x'"):
        vi.targets.from_numpyro(rows_by(take, batch_size), jnp.arange(num) * 1.0)


@pytest.mark.cases(rest=None, slow=["1-index", "1-ours", "1-one"])
@pytest.mark.integration
@pytest.mark.parametrize(
    "take",
    [lambda x, index: x[index], lambda x, index: numpyro.subsample(x, 0), lambda x, index: 3.0],
    ids=["index", "ours", "one"],
)
@pytest.mark.parametrize("batch_size", [1, 25])
def test_data_by_the_plates_index_are(take, batch_size):
    target = vi.targets.from_numpyro(rows_by(take, batch_size), jnp.arange(100) * 1.0)
    assert (target.num_rows, target.batch_size) == (100, batch_size)


@pytest.mark.cases(rest=None, slow=["99-index", "99-take"])
@pytest.mark.integration
@pytest.mark.parametrize(
    "take",
    [lambda x, index: x[index], lambda x, index: jnp.take(x, index, axis=0)],
    ids=["index", "take"],
)
@pytest.mark.parametrize("num", [25, 99])
def test_an_index_beyond_the_data_is_not_clamped_in_silence(take, num):
    with pytest.raises(
        TargetError,
        match=f"rows of its plate 'rows'.*is taken of an array of {num}; the plate has 100",
    ):
        vi.targets.from_numpyro(rows_by(take, 25), jnp.arange(num) * 1.0)


@pytest.mark.integration
def test_the_row_after_the_last_may_be_filled_up():
    shifted = rows_by(lambda x, index: x.at[index + 1].get(mode="fill", fill_value=0.0), 25)
    assert vi.targets.from_numpyro(shifted, jnp.arange(100) * 1.0).num_rows == 100


@pytest.mark.integration
def test_a_target_may_be_made_within_jit():
    def value(x):
        target = vi.targets.from_numpyro(rows_by(lambda x, index: x[index], 25), x)
        return target.log_rows(jnp.zeros(1), jnp.zeros((25, 1)), jnp.arange(25)).sum()

    x = jnp.arange(100) / 50
    np.testing.assert_allclose(jax.jit(value)(x), value(x), rtol=1e-6)


@pytest.mark.parametrize(("num", "size"), [(17, 5), (1500, 3)])
def test_subsets_are_of_different_rows_and_even(num, size):
    keys = jax.random.split(jax.random.key(0), 30_000)
    rows = np.sort(np.asarray(jax.jit(jax.vmap(lambda key: subset(key, num, size)))(keys)), 1)
    assert rows[:, 0].min() == 0
    assert rows[:, -1].max() == num - 1
    assert np.all(np.diff(rows, axis=1) > 0)
    counts = np.bincount(rows.ravel(), minlength=num)
    chi2 = np.sum((counts - counts.mean()) ** 2) / (counts.mean() * (1 - size / num))
    assert abs(chi2 - (num - 1)) < 5 * np.sqrt(2 * num)
    bins = min(num, 30)  # pairs too: the two least
    pairs = np.histogram2d(rows[:, 0], rows[:, 1], bins=bins, range=[[0, num], [0, num]])[0]
    a, b = np.meshgrid(np.arange(num), np.arange(num), indexing="ij")
    weight = np.where(a < b, comb(num - 1 - b, size - 2), 0)
    expected = np.histogram2d(
        a.ravel(), b.ravel(), bins=bins, range=[[0, num], [0, num]], weights=weight.ravel()
    )[0]
    expected *= pairs.sum() / expected.sum()
    big = expected > 5
    chi2 = np.sum((pairs - expected)[big] ** 2 / expected[big])
    assert abs(chi2 - big.sum()) < 5 * np.sqrt(2 * big.sum())
