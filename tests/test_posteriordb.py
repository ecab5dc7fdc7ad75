"""posteriordb's posteriors against their reference draws: the score identity, float32, step sizes;
and the reading of files.
"""

import gzip
import json
import warnings
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from helpers import assert_mean
from numpyro import handlers

from experiments import posteriordb
from experiments.data.base import DataError
from experiments.posteriordb import database, dynamics, gaussian, gaussian_processes
from experiments.posteriordb.score import score_identity, scores, unconstrain

HARD_IN_FLOAT32 = (
    "diamonds-diamonds",
    "earnings-earn_height",
    "gp_pois_regr-gp_pois_regr",
    "kilpisjarvi_mod-kilpisjarvi",
    "hudson_lynx_hare-lotka_volterra",
)
REPARAMETERISED = (
    "eight_schools-eight_schools_noncentered",
    "garch-garch11",
    "gp_pois_regr-gp_pois_regr",
)
ODES = ("hudson_lynx_hare-lotka_volterra", "one_comp_mm_elim_abs-one_comp_mm_elim_abs")


@pytest.fixture(scope="module")
def root(shared_data):
    folder = shared_data / "posteriordb"
    if not folder.is_dir():
        pytest.skip(f"no posteriordb at {folder}")
    return folder


@pytest.fixture(scope="module", autouse=True)
def _caches_left_empty():
    """A hundred compiled models are many memory maps, of which a process may have 65,530."""
    yield
    jax.clear_caches()


def loaded(name, root, num_draws=None):
    """The posterior, its reference draws, and these in unconstrained space."""
    posterior = posteriordb.load(name, root)
    draws = posteriordb.reference_draws(name, root)[:num_draws]
    return posterior, draws, unconstrain(posterior.model, posterior.unflatten(draws))


def test_there_are_46_names():
    assert len(posteriordb.names()) == len(set(posteriordb.names())) == 46
    assert not set(posteriordb.MEANS_ONLY) & set(posteriordb.names())


IN_DEFAULT = (
    "arK-arK",
    "eight_schools-eight_schools_noncentered",
    "garch-garch11",
    "mesquite-mesquite",
    "sblrc-blr",
    "nes1972-nes",
)


@pytest.mark.cases(rest=None, slow=["arK-arK", "mesquite-mesquite"])
@pytest.mark.integration
@pytest.mark.parametrize(
    "name",
    [
        name if name in IN_DEFAULT else pytest.param(name, marks=pytest.mark.slow)
        for name in posteriordb.names()
    ],
)
def test_the_reference_draws_obey_the_score_identity(name, root, x64):
    """E[grad log p] = 0 and E[w grad log p'] = -I on a thousand reference draws, in float64."""
    posterior, draws, unconstrained = loaded(name, root)
    assert_mean(draws, posterior.mean)
    identity = score_identity(*scores(posterior.model, unconstrained))
    assert identity.worst < 5.0, (
        f"E[g] is off by {identity.first.round(1)} stderrs, E[w g'] by {identity.second.round(1)}"
    )


def test_the_score_identity_sees_a_wrong_density(x64):
    """Draws of N(0, 1) are not those of N(0, 1.2^2), of N(0.2, 1), or of a Student-t."""
    u = np.random.default_rng(0).standard_normal((1000, 2))
    assert score_identity(u, -u).worst < 4.0
    assert score_identity(u, -u / 1.2**2).worst > 5.0
    assert score_identity(u, 0.2 - u).worst > 5.0
    assert score_identity(u, -4.0 * u / (3.0 + u**2)).worst > 5.0


def float32_error(name, root):
    """The largest error of the float32 gradient, in units of one over a posterior standard
    deviation, whitened.
    """
    with jax.enable_x64(True):
        posterior, _, unconstrained = loaded(name, root, 200)
        u, exact = scores(
            posterior.model,
            {
                key: value.astype(jnp.float32).astype(jnp.float64)
                for key, value in unconstrained.items()
            },
        )
    with jax.enable_x64(False), warnings.catch_warnings():
        warnings.simplefilter("error")
        _, rounded = scores(
            posterior.model,
            {key: jnp.asarray(value, jnp.float32) for key, value in unconstrained.items()},
        )
    assert rounded.dtype == np.float32
    return np.abs((rounded - exact) @ np.linalg.cholesky(np.cov(u, rowvar=False))).max()


@pytest.mark.cases(rest=None, slow=["diamonds-diamonds", "earnings-earn_height"])
@pytest.mark.integration
@pytest.mark.parametrize("name", HARD_IN_FLOAT32)
def test_the_gradient_is_accurate_in_float32(name, root):
    assert float32_error(name, root) < 2e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(posteriordb.names()) - set(HARD_IN_FLOAT32)))
def test_every_gradient_is_accurate_in_float32(name, root):
    assert float32_error(name, root) < 2e-3


@pytest.mark.integration
@pytest.mark.parametrize("name", REPARAMETERISED)
def test_flatten_undoes_unflatten(name, root, x64):
    posterior = posteriordb.load(name, root)
    draws = posteriordb.reference_draws(name, root)[:50]

    def sites(latents):
        trace = handlers.trace(
            handlers.substitute(handlers.seed(posterior.model, 0), data=latents)
        ).get_trace()
        return {
            key: site["value"]
            for key, site in trace.items()
            if site["type"] in ("sample", "deterministic")
        }

    np.testing.assert_allclose(
        posterior.flatten(jax.vmap(sites)(posterior.unflatten(draws))), draws, rtol=1e-5
    )


def test_flatten_names_what_is_missing(root, x64):
    posterior = posteriordb.load("garch-garch11", root)
    with pytest.raises(ValueError, match=r"\['beta1'\] are missing"):
        posterior.flatten({"mu": np.zeros(3), "alpha0": np.zeros(3), "alpha1": np.zeros(3)})


@pytest.mark.integration
@pytest.mark.parametrize("name", ODES)
def test_halving_the_step_changes_nothing(name, root, x64):
    """Scores by 20 and by 40 Runge-Kutta steps between observations differ by less than a hundredth
    of 1 / sd.
    """
    posterior, _, unconstrained = loaded(name, root, 100)
    u, coarse = scores(posterior.model, unconstrained)
    _, fine = scores(lambda: posterior.model(steps=2 * dynamics.STEPS), unconstrained)
    assert np.abs((fine - coarse) @ np.linalg.cholesky(np.cov(u, rowvar=False))).max() < 1e-2


def test_runge_kutta_is_of_fourth_order(x64):
    """dx/dt = x cos t from x(0) = 1 is exp(sin t); half the step, a sixteenth of the error."""
    times = jnp.array([0.0, 1.0, 2.5, 3.0])

    def error(steps):
        path = dynamics.runge_kutta(lambda t, x: x * jnp.cos(t), jnp.asarray(1.0), times, steps)
        return jnp.abs(path - jnp.exp(jnp.sin(times[1:]))).max()

    assert error(10) < 1e-4
    assert 13.0 < error(10) / error(20) < 19.0


@pytest.mark.integration
def test_the_regression_likelihood_is_the_sum_over_rows(x64):
    rng = np.random.default_rng(0)
    design = gaussian.columns(rng.normal(5.0, 1.0, 30), rng.normal(size=30))
    outcome = rng.normal(size=30)
    fit = gaussian.least_squares(design, outcome)
    beta = jnp.array([0.5, -0.3, 1.0])
    sigma = jnp.asarray(1.7)
    expected = dist.Normal(design @ beta, sigma).log_prob(outcome).sum()
    np.testing.assert_allclose(
        gaussian.log_lik_ratio(fit, beta, sigma) + fit.log_max, expected, rtol=1e-12
    )
    np.testing.assert_allclose(
        gaussian.log_lik_ratio(fit, jnp.asarray(fit.beta), jnp.asarray(fit.scale)), 0.0, atol=1e-12
    )


@pytest.mark.integration
def test_the_root_of_the_kernel_is_its_cholesky_factor(x64):
    x = np.arange(-3.0, 4.0)
    for rho in (0.05, 0.7, 2.0):
        root = gaussian_processes.correlation_root(x, jnp.asarray(rho))
        np.testing.assert_allclose(
            root, np.linalg.cholesky(np.exp(-0.5 * ((x[:, None] - x) / rho) ** 2)), atol=1e-9
        )
    with pytest.raises(ValueError, match="equally spaced"):
        gaussian_processes.correlation_root(np.array([0.0, 1.0, 3.0]), jnp.asarray(1.0))


def write_clone(folder, *, pack):
    """A clone with one posterior and two chains of three draws; `pack(path, value)` writes a JSON
    file.
    """
    names = [*(f"theta[{j}]" for j in range(1, 9)), "mu", "tau"]
    draws = np.arange(60, dtype=float).reshape(6, 10)
    chains = [dict(zip(names, part.T.tolist(), strict=True)) for part in (draws[:3], draws[3:])]
    data = {"J": 8, "y": [28, 8, -3, 7, -1, 1, 18, 12], "sigma": [15, 10, 16, 11, 9, 11, 10, 18]}
    about = {
        "data_name": "eight_schools",
        "model_name": "m",
        "reference_posterior_name": "eight_schools-eight_schools_noncentered",
    }
    inside = folder / "posterior_database"
    for part in ("posteriors", "data/data", "reference_posteriors/draws/draws"):
        (inside / part).mkdir(parents=True)
    (inside / "posteriors/eight_schools-eight_schools_centered.json").write_text(json.dumps(about))
    pack(inside / "data/data/eight_schools.json", data)
    pack(
        inside / "reference_posteriors/draws/draws/eight_schools-eight_schools_noncentered.json",
        chains,
    )
    return draws


def as_zip(path, value):
    with zipfile.ZipFile(f"{path}.zip", "w") as archive:
        archive.writestr(path.name, json.dumps(value))


def as_gzip(path, value):
    path.with_name(path.name + ".gz").write_bytes(gzip.compress(json.dumps(value).encode()))


def as_text(path, value):
    path.write_text(json.dumps(value))


@pytest.mark.cases(rest=None, integration=["posterior_database-as_text"])
@pytest.mark.parametrize("pack", [as_zip, as_gzip, as_text])
@pytest.mark.parametrize("inside", ["", "posterior_database"])
def test_a_clone_is_read(tmp_path, pack, inside):
    """Draws from the chains, moments from the draws; from the clone or from the folder inside
    it.
    """
    name = "eight_schools-eight_schools_centered"
    draws = write_clone(tmp_path, pack=pack)
    posterior = posteriordb.load(name, tmp_path / inside)
    np.testing.assert_array_equal(posteriordb.reference_draws(name, tmp_path / inside), draws)
    np.testing.assert_allclose(posterior.mean, draws.mean(0))
    np.testing.assert_allclose(posterior.sd, draws.std(0, ddof=1))
    assert posterior.names[0] == "theta[1]"
    assert posterior.names[-1] == "tau"
    assert set(posterior.data) == {"y", "sigma"}
    np.testing.assert_array_equal(posterior.flatten(posterior.unflatten(draws)), draws)


@pytest.mark.integration
def test_summaries_serve_where_there_are_no_draws(root):
    posterior = posteriordb.load("mcycle_gp-accel_gp", root)
    assert posterior.mean.shape == posterior.sd.shape == (len(posterior.names),) == (66,)
    with pytest.raises(DataError, match="no reference draws"):
        posteriordb.reference_draws("mcycle_gp-accel_gp", root)


@pytest.mark.integration
def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(DataError, match="git clone"):
        posteriordb.load("arK-arK", tmp_path / "nowhere")
    with pytest.raises(DataError, match="Did you mean 'garch-garch11'"):
        posteriordb.load("garch-garch", tmp_path)
    write_clone(tmp_path, pack=as_zip)
    (tmp_path / "posterior_database/data/data/eight_schools.json.zip").unlink()
    with pytest.raises(DataError, match=r"eight_schools.json.*git clone"):
        database.read_data("eight_schools", tmp_path)
