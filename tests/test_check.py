"""vi.check: every finding by a fault planted in a small model, the same models without a fault, and
the page it prints.

The exact checks have no false alarms to count; the statistical ones are counted over many keys in a
slow test.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from helpers import normal
from numpyro.distributions import constraints

import vi_jax as vi
from vi_jax.diagnostics import CHECKS, FINDINGS

KEY = jax.random.key(0)
N = 40
B = 8
D = 2
X = jnp.asarray(normal(0, N, D), jnp.float32)
Y = jnp.asarray(normal(1, N) > 0, jnp.float32)
BATCH = (X[:B], Y[:B])
STD_NORMAL = dist.Normal(jnp.zeros(D), jnp.ones(D)).to_event(1)
Q = dist.Normal(jnp.array([0.3, -0.2]), jnp.array([0.5, 0.7])).to_event(1)


def log_prior(z):
    return STD_NORMAL.log_prob(z)


def terms(z, batch):
    x, y = batch
    return vi.distributions.Bernoulli(x @ z).log_prob(y)


def full(z, batch):
    return log_prior(z) + terms(z, batch).sum()


def scaled(z, batch):
    return log_prior(z) + N / len(batch[1]) * terms(z, batch).sum()


def gaussian(z):
    return log_prior(z) + dist.Normal(z.sum(), 1.0).log_prob(jnp.array([0.5, 1.0])).sum()


def found(log_joint, q=Q, only=(), key=KEY, **given):
    report = vi.check(key, log_joint, q, only=only, **given)
    stopped = [note for note in report.undecided if "stopped by" in note]
    assert not stopped, stopped
    assert set(report.names) <= set(FINDINGS)
    return report


def assert_finds(name, log_joint, q=Q, only=(), **given):
    report = found(log_joint, q, only, **given)
    assert name in report.names, f"{name} was not found:\n{report}"
    assert all(finding.remedy and finding.message for finding in report.findings)
    return next(finding for finding in report.findings if finding.name == name)


# --- shapes, chance, broadcasting
# -----------------------------------------------------------------------------------


@pytest.mark.integration
def test_log_joint_of_more_than_one_number():
    finding = assert_finds("shape", lambda z: dist.Normal(0.0, 1.0).log_prob(z))
    assert "(2,)" in finding.message
    assert_finds("shape", lambda z: jnp.sum(z > 0))


def test_a_guide_without_its_event_axis():
    assert (
        "to_event" in assert_finds("shape", gaussian, dist.Normal(jnp.zeros(D), jnp.ones(D))).remedy
    )


@pytest.mark.parametrize(("shape_z", "shape_x"), [((5, 1), (5,)), ((5,), (5, 1))])
def test_an_implicit_outer_product(shape_z, shape_x):
    def log_joint(z):
        return (
            log_prior(z)
            + dist.Normal(z[0] * jnp.ones(shape_z), 1.0)
            .log_prob(jnp.arange(5.0).reshape(shape_x))
            .sum()
        )

    assert assert_finds("broadcast", log_joint, only=["broadcasting"]).evidence["size"] == 5


@pytest.mark.integration
def test_a_covariance_matrix_is_not_an_accident():
    x = jnp.arange(5.0)

    def log_joint(z):
        kernel = jnp.exp(-((x - x[:, None]) ** 2)) * jnp.exp(z[0]) + jnp.eye(5)
        return log_prior(z) + dist.MultivariateNormal(jnp.zeros(5), kernel).log_prob(jnp.ones(5))

    assert found(log_joint, only=["broadcasting"]).ok


@pytest.mark.integration
def test_a_hidden_random_state():
    rng = np.random.default_rng(0)
    assert_finds("random", lambda z: gaussian(z) + rng.standard_normal(), only=["chance"])


# --- NaN, support
# -------------------------------------------------------------------------------------------------


@pytest.mark.integration
def test_a_nan_names_its_line():
    def log_joint(z):
        root = jnp.sqrt(z[0])  # NaN for half of the draws
        return log_prior(z) - root

    finding = assert_finds("nan", log_joint, only=["finite"])
    assert (
        finding.evidence["where"]
        == f"`sqrt` at test_check.py:{log_joint.__code__.co_firstlineno + 1} ({LOCAL}log_joint)"
    )


LOCAL = "test_a_nan_names_its_line.<locals>."


@pytest.mark.integration
def test_a_nan_of_a_gradient_behind_a_where():
    def log_joint(z):
        return log_prior(z) + jnp.where(z[0] > 0, jnp.sqrt(z[0]), 0.0)

    finding = assert_finds("nan", log_joint, only=["finite"])
    assert "gradient" in finding.message
    assert "test_check.py" in finding.evidence["where"]


def test_a_nan_inside_compiled_functions_and_loops():
    @jax.jit
    def inner(total, x):
        return total + jnp.log(x), None

    def log_joint(z):
        return log_prior(z) + jax.lax.scan(inner, 0.0, z)[0]

    assert "log" in assert_finds("nan", log_joint, only=["finite"]).evidence["where"]


def test_a_guide_wider_than_the_model():
    def log_joint(z):
        return jnp.where(z[0] > 0, -z[0], -jnp.inf) + dist.Normal(0.0, 1.0).log_prob(z[1])

    assert_finds("support", log_joint, only=["finite"])


@pytest.mark.integration
def test_the_models_support_against_the_guides():
    positive = dist.LogNormal(0.0, 1.0)
    real = dist.Normal(0.0, 1.0)
    only = ["supports"]
    assert (
        "share_outside"
        in assert_finds(
            "support", dist.Exponential(1.0).log_prob, real, only, support=constraints.positive
        ).evidence
    )
    assert (
        "share_missed"
        in assert_finds("support", real.log_prob, positive, only, support=constraints.real).evidence
    )
    assert found(dist.Exponential(1.0).log_prob, positive, only, support=constraints.positive).ok


def test_draws_that_are_not_numbers():
    assert_finds(
        "nan",
        gaussian,
        faulty("none")({**PARAMS, "log_scale": jnp.array([0.0, jnp.inf])}),
        only=["finite"],
    )


# --- gradients in z
# -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "detach",
    [
        jax.lax.stop_gradient,
        lambda z: z.at[1].set(jax.lax.stop_gradient(z[1])),
        lambda z: jnp.round(8.0 * z) / 8.0,
    ],
    ids=["all", "one coordinate", "rounding"],
)
def test_a_detached_path_in_log_joint(detach):
    assert (
        assert_finds("gradient", lambda z: gaussian(detach(z)), only=["differences"]).evidence[
            "term"
        ]
        == "log_joint"
    )


def test_a_wrong_derivative_rule():
    f = jax.custom_jvp(lambda z: gaussian(z))
    f.defjvp(
        lambda primals, tangents: (
            gaussian(*primals),
            2.0 * jax.jvp(gaussian, primals, tangents)[1],
        )
    )
    assert_finds("gradient", f, only=["differences"])


def test_float32_cliffs():
    def softplus(x):
        return jnp.log(1.0 + jnp.exp(x))  # inf beyond 88

    at_draws = assert_finds(
        "float32", lambda z: log_prior(z) - softplus(200.0 * z[0]), only=["float32"]
    )
    assert at_draws.severity == "error"
    assert "test_check.py" in at_draws.message
    far_out = assert_finds(
        "float32", lambda z: log_prior(z) - softplus(45.0 * z[0]), only=["float32"]
    )
    assert far_out.severity == "warning"


def test_digits_that_cancel_in_float32():
    x = jnp.float32(1e4) + jnp.asarray(normal(3, 50), jnp.float32)

    def log_joint(z):  # sum (x - z)^2 by its moments, with x far from 0
        return log_prior(z) - 0.5 * (
            (x**2).sum() - 2.0 * x.sum() * (1e4 + z[0]) + 50.0 * (1e4 + z[0]) ** 2
        )

    assert "cancel" in assert_finds("float32", log_joint, only=["float32"]).message


# --- sign, normalisation of the model
# -------------------------------------------------------------------------------


def test_a_flipped_sign():
    assert_finds("sign", lambda z: -gaussian(z), only=["tails"])
    positive = dist.Gamma(3.0, 2.0)
    assert_finds("sign", lambda z: -positive.log_prob(z), dist.LogNormal(0.0, 0.5), only=["tails"])


@pytest.mark.integration
def test_a_flipped_likelihood_or_prior():
    given = dict(batch=BATCH, per_example=terms, log_prior=log_prior, only=["rows"])
    assert_finds("sign", lambda z, batch: log_prior(z) - terms(z, batch).sum(), **given)
    assert_finds("sign", lambda z, batch: -log_prior(z) + terms(z, batch).sum(), **given)


def test_a_prior_that_is_missing():
    finding = assert_finds(
        "improper", lambda z: dist.Normal(0.0, 1.0).log_prob(z[0]), only=["tails"]
    )
    assert finding.evidence["level"] == 2
    assert "[1]" in finding.message


def test_a_log_determinant_that_leaves_a_flat_tail():
    scale_prior = dist.HalfNormal(1.0)
    x = jnp.array([0.3, -0.4])

    def log_joint(z, with_log_det):  # z = (location, log of its scale), non-centred
        scale = jnp.exp(z[1])
        lik = dist.Normal(z[0] * scale, 1.0).log_prob(x).sum()
        return (
            dist.Normal(0.0, 1.0).log_prob(z[0])
            + scale_prior.log_prob(scale)
            + lik
            + (z[1] if with_log_det else 0.0)
        )

    finding = assert_finds("improper", lambda z: log_joint(z, False), only=["tails"])
    assert "log |d constrained / dz|" in finding.remedy
    assert found(lambda z: log_joint(z, True), only=["tails"]).ok


@pytest.mark.parametrize(
    ("factor", "says"), [(0.0, "is missing"), (-1.0, "wrong sign"), (0.5, "is not what")]
)
def test_a_change_of_variables_against_its_claim(factor, says):
    def log_density(s):
        return dist.Gamma(3.0, 2.0).log_prob(s).sum()

    def log_joint(z, factor):
        return log_density(jnp.exp(z)) + factor * z.sum()

    claim = dict(constrained=(log_density, jnp.exp), only=["log_determinant"])
    assert says in assert_finds("log_det", lambda z: log_joint(z, factor), **claim).message
    assert found(lambda z: log_joint(z, 1.0), **claim).ok


# --- rows of a batch
# ------------------------------------------------------------------------------------------------

ROWS = dict(batch=BATCH, only=["rows"])


def column(z, batch):
    x, y = batch
    return log_prior(z) + vi.distributions.Bernoulli((x @ z)[:, None]).log_prob(y).sum()


@pytest.mark.parametrize(
    ("name", "log_joint", "num_data"),
    [
        ("mean_not_sum", lambda z, b: log_prior(z) + terms(z, b).mean(), None),
        ("mean_not_sum", scaled, None),
        ("prior_scale", lambda z, b: (log_prior(z) + terms(z, b).sum()) / len(b[1]), None),
        ("prior_scale", lambda z, b: N / len(b[1]) * full(z, b), N),
        ("minibatch_scale", full, N),
        ("rows_mixed", column, None),
        ("rows_mixed", lambda z, b: log_prior(z) + len(b[1]) * terms(z, b).sum(), None),
        ("batch_unused", lambda z, b: full(z, BATCH), None),
    ],
)
def test_rows_without_being_told_the_terms(name, log_joint, num_data):
    assert_finds(name, log_joint, num_data=num_data, **ROWS)


@pytest.mark.cases(rest="integration", default=["mean_not_sum-0.125-mean over rows"])
@pytest.mark.parametrize(
    ("name", "factor", "says"),
    [
        ("minibatch_scale", 1.0, "not scaled"),
        ("minibatch_scale", (N / B) ** 2, "twice"),
        ("minibatch_scale", 7.7, "none of the usual"),
        ("mean_not_sum", 1.0 / B, "mean over rows"),
        ("mean_not_sum", N / B**2, "a mean where a sum"),
        ("sign", -N / B, "flipped"),
    ],
)
def test_the_scale_of_terms_that_are_told(name, factor, says):
    def log_joint(z, batch):
        return log_prior(z) + factor * terms(z, batch).sum()

    finding = assert_finds(name, log_joint, num_data=N, per_example=terms, **ROWS)
    assert says in finding.message
    assert np.isclose(finding.evidence["scale"], factor, rtol=1e-3)


@pytest.mark.cases(rest="integration", default=["8-each row"])
@pytest.mark.parametrize(("factor", "says"), [(N / B, "N/B"), (B, "each row"), (0.0, "0 times")])
def test_the_scale_of_a_prior_that_is_told(factor, says):
    def log_joint(z, batch):
        return factor * log_prior(z) + N / B * terms(z, batch).sum()

    assert (
        says
        in assert_finds(
            "prior_scale", log_joint, num_data=N, per_example=terms, log_prior=log_prior, **ROWS
        ).message
    )


def test_terms_that_are_not_those_of_log_joint():
    assert_finds("terms_differ", full, per_example=lambda z, b: terms(2.0 * z + 1.0, b), **ROWS)


@pytest.mark.integration
def test_terms_that_are_mixed():
    assert_finds(
        "rows_mixed", full, per_example=lambda z, b: terms(z, b) - terms(z, b).mean(), **ROWS
    )
    assert_finds("rows_mixed", full, per_example=lambda z, b: terms(z, b)[:, None], **ROWS)


@pytest.mark.integration
def test_a_constant_factor_is_settled_by_the_terms():
    def log_joint(z, batch):
        return log_prior(z) + N / B * terms(z, batch).sum()

    assert not found(log_joint, num_data=N, **ROWS).ok
    assert found(log_joint, num_data=N, per_example=terms, log_prior=log_prior, **ROWS).ok


@pytest.mark.integration
def test_what_rows_cannot_tell_is_said():
    moving = (X[:B, 0],)
    notes = found(
        lambda z, b: log_prior(z) - (jnp.arange(B) * (b[0] - z[0]) ** 2).sum(),
        batch=moving,
        only=["rows"],
    ).undecided
    assert any("order" in note for note in notes)
    notes = found(lambda z, b: full(z, (b[0].reshape(B, D), b[1])), **ROWS).undecided
    assert any("another size" in note for note in notes)


# --- sample against log_prob
# ----------------------------------------------------------------------------------------


@jax.tree_util.register_dataclass
@dataclass
class Faulty:
    """A Gaussian guide over [D], with a fault of choice."""

    loc: Any
    log_scale: Any
    fault: str = field(default="none", metadata={"static": True})

    def sample(self, key, sample_shape=()):
        eps = jax.random.normal(key, (*sample_shape, *self.loc.shape))
        loc = jax.lax.stop_gradient(self.loc) if self.fault == "detached draws" else self.loc
        return loc + jnp.exp(self.log_scale) * eps

    def log_prob(self, z):
        scale = jnp.exp(self.log_scale)
        if self.fault == "variance":
            scale = scale**2
        if self.fault == "detached density":
            scale = jax.lax.stop_gradient(scale)
        eps = (z - self.loc) / scale
        if self.fault == "shifted":
            eps = eps + 0.3
        normaliser = 0.0 if self.fault == "unnormalised" else jnp.log(scale).sum()
        return -0.5 * (eps**2).sum(-1) - normaliser - 0.5 * eps.size * jnp.log(2.0 * jnp.pi)


PARAMS = {"loc": jnp.array([0.3, -0.2]), "log_scale": jnp.array([-0.5, 0.4])}


def faulty(fault):
    return lambda params: Faulty(params["loc"], params["log_scale"], fault)


@pytest.mark.cases(
    rest=None,
    slow=["sample_log_prob-variance-stein", "score-variance-score", "score-shifted-score"],
)
@pytest.mark.integration
@pytest.mark.parametrize(
    ("name", "fault", "only"),
    [
        ("sample_log_prob", "variance", "stein"),
        ("sample_log_prob", "shifted", "stein"),
        ("normalisation", "unnormalised", "normalisation"),
        ("score", "variance", "score"),
        ("score", "shifted", "score"),
        ("score", "unnormalised", "score"),
        ("detached", "detached draws", "detached"),
        ("detached", "detached density", "detached"),
    ],
)
def test_a_faulty_guide(name, fault, only):
    finding = assert_finds(name, gaussian, faulty(fault), [only], params=PARAMS)
    if only == "detached":
        assert finding.evidence["parameters"] == (
            "['loc']" if "draws" in fault else "['log_scale']"
        )
    assert found(gaussian, faulty("none"), [only], params=PARAMS).ok


@pytest.mark.integration
def test_the_guides_own_leaves_are_its_parameters_where_none_are_given():
    assert_finds("detached", gaussian, faulty("detached draws")(PARAMS), ["detached"])
    assert found(gaussian, faulty("none")(PARAMS), ["detached"]).ok


def test_a_correlation_that_log_prob_does_not_know():
    class Half(Faulty):
        def sample(self, key, sample_shape=()):
            eps = jax.random.normal(key, (*sample_shape, 2))
            return eps @ jnp.array([[1.0, 0.0], [0.6, 0.8]]).T

    assert_finds("sample_log_prob", gaussian, Half(jnp.zeros(2), jnp.zeros(2)), ["stein"])


@pytest.mark.integration
def test_a_path_that_is_cut_between_parameters_and_guide():
    def guide(params):
        return dist.Normal(
            params["loc"], jnp.exp(jax.lax.stop_gradient(params["log_scale"]))
        ).to_event(1)

    assert_finds("detached", gaussian, guide, ["detached"], params=PARAMS)


@pytest.mark.integration
def test_a_choice_of_component_that_autodiff_does_not_see():
    def guide(params):
        mixture = dist.MixtureSameFamily(
            dist.Categorical(logits=params["logits"]), dist.Normal(params["loc"], 0.1)
        )

        class Claims:
            has_rsample = True
            sample = mixture.sample
            log_prob = mixture.log_prob

        return Claims

    params = {"logits": jnp.zeros(2), "loc": jnp.array([-3.0, 3.0])}
    finding = assert_finds(
        "detached", dist.Normal(0.0, 1.0).log_prob, guide, ["detached"], params=params
    )
    assert finding.evidence["parameters"] == "['logits']"


def test_a_parameter_that_nothing_uses():
    assert_finds(
        "unused", gaussian, faulty("none"), ["detached"], params={**PARAMS, "idle": jnp.zeros(3)}
    )


@pytest.mark.integration
def test_discrete_guides():
    class Wrong(dist.CategoricalLogits):
        def log_prob(self, value):
            return dist.Categorical(logits=-self.logits).log_prob(value)

    class Unnormalised(dist.CategoricalLogits):
        def log_prob(self, value):
            return self.logits[value]

    logits = jnp.array([0.0, 1.0, -1.0])

    def log_joint(z):
        return jnp.array([-1.0, -2.0, -3.0])[z]

    assert_finds("sample_log_prob", log_joint, Wrong(logits), ["frequencies"])
    assert_finds("normalisation", log_joint, Unnormalised(logits), ["frequencies"])
    assert found(
        log_joint, dist.Categorical(logits=logits), ["finite", "frequencies", "tails", "stein"]
    ).ok
    bits = dist.Bernoulli(logits=jnp.array([0.3, -1.0, 2.0])).to_event(1)
    assert found(lambda z: -1.0 * z.sum(), bits, ["finite", "frequencies"]).ok


# --- clean models
# -------------------------------------------------------------------------------------------------


def eight_schools():
    effects = jnp.array([28.0, 8, -3, 7, -1, 1, 18, 12])
    errors = jnp.array([15.0, 10, 16, 11, 9, 11, 10, 18])

    def log_joint(z):
        prior = dist.Normal(0.0, 5.0).log_prob(z["mu"]) + dist.HalfCauchy(5.0).log_prob(z["tau"])
        lik = dist.Normal(z["mu"] + z["tau"] * z["theta"], errors).log_prob(effects).sum()
        return prior + dist.Normal(0.0, 1.0).log_prob(z["theta"]).sum() + lik

    supports = {
        "mu": (constraints.real, ()),
        "tau": (constraints.positive, ()),
        "theta": (constraints.real, (8,)),
    }
    family = vi.families.constrained(supports)
    return log_joint, family.guide, {"params": family.init(KEY)}


def vae():
    model = vi.models.vae((12,), num_latents=3, hidden=(16,))
    params = model.init(KEY)
    x = jnp.asarray(normal(5, 12) > 0, jnp.float32)
    encode = lambda encoder: model.densities.guide({**params, "encoder": encoder}, x)  # noqa: E731
    return vi.losses.log_joint(model, params, x), encode, {"params": params["encoder"]}


def logistic(**given):
    family = vi.families.full_rank(D)
    return (
        (full if "num_data" not in given else scaled),
        family.guide,
        {"params": family.init(KEY), **given},
    )


def of_family(name, **options):
    family = getattr(vi.families, name)(D, **options)
    return gaussian, family.guide, {"params": family.init(jax.random.key(7))}


CLEAN = {
    "gaussian": lambda: (gaussian, Q, {}),
    "logistic": lambda: logistic(batch=(X, Y), per_example=terms, log_prior=log_prior),
    "logistic minibatch": lambda: logistic(batch=BATCH, num_data=N),
    "logistic minibatch, all told": lambda: logistic(
        batch=BATCH, num_data=N, per_example=terms, log_prior=log_prior
    ),
    "eight schools": eight_schools,
    "vae": vae,
    "mixture": lambda: of_family("mixture"),
    "student_t": lambda: of_family("student_t"),
    "real_nvp": lambda: of_family("real_nvp"),
    "gamma": lambda: (
        dist.Gamma(3.0, 2.0).log_prob,
        dist.Gamma(2.5, 2.0),
        {"support": constraints.positive},
    ),
    "beta": lambda: (dist.Beta(3.0, 2.0).log_prob, dist.Beta(2.5, 2.0), {}),
    "dirichlet": lambda: (
        dist.Dirichlet(jnp.array([3.0, 2, 1])).log_prob,
        dist.Dirichlet(jnp.array([2.0, 2, 2])),
        {},
    ),
    "full": lambda: (
        gaussian,
        dist.MultivariateNormal(jnp.zeros(2), jnp.array([[1.0, 0.6], [0.6, 1.0]])),
        {},
    ),
    "cauchy": lambda: (dist.Cauchy(0.0, 1.0).log_prob, dist.StudentT(2.0, 0.0, 1.0), {}),
}


@pytest.mark.integration
@pytest.mark.parametrize(
    "name",
    [
        "eight schools",
        pytest.param("vae", marks=pytest.mark.integration),
        pytest.param("logistic minibatch, all told", marks=pytest.mark.slow),
    ],
)
def test_clean_models_give_no_findings(name):
    log_joint, q, given = CLEAN[name]()
    report = found(log_joint, q, **given)
    assert report.ok, str(report)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", sorted(CLEAN))
def test_clean_models_give_no_findings_for_other_keys(name, seed):
    log_joint, q, given = CLEAN[name]()
    report = found(log_joint, q, key=jax.random.key(seed + 100), **given)
    assert report.ok, str(report)


# --- the report
# -------------------------------------------------------------------------------------------------


def test_the_report_reads_and_is_machine_readable():
    report = found(lambda z: -gaussian(z), only=["tails", "chance"])
    assert report.names == ("sign",)
    assert report.done == ("shapes", "chance", "tails")
    assert not report.ok
    text = str(report)
    assert text.startswith("1 finding; 3 checks, ")
    assert "error: sign" in text
    assert "Remedy: " in text
    assert max(map(len, text.splitlines())) <= 100
    back = json.loads(json.dumps(report.to_dict()))
    assert back["findings"][0]["name"] == "sign"
    assert back["findings"][0]["evidence"]["rising"] == 28
    assert str(found(gaussian, only=["chance"])).startswith("no findings; 2 checks")


def test_one_key_gives_one_report():
    first, again = (found(gaussian, faulty("variance"), ["stein"], params=PARAMS) for _ in range(2))
    assert first.findings == again.findings


@pytest.mark.integration
def test_a_check_that_fails_does_not_hide_the_others():
    def log_joint(z):
        if z.dtype == jnp.float64:
            raise TypeError("only float32 here")
        return -gaussian(z)

    report = vi.check(KEY, log_joint, Q, only=("tails", "finite", "stein"))
    assert any("float64" in note for note in report.undecided)
    assert report.ok


def test_settings_are_left_as_they_were():
    before = jax.config.jax_enable_x64
    found(gaussian, only=CHECKS[:2])
    assert jax.config.jax_enable_x64 == before


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (dict(num_data=3), "give batch="),
        (dict(per_example=terms), "give batch="),
        (dict(batch=(X, Y[:3])), "same axis"),
        (dict(batch=BATCH, num_data=3), "at least the batch's"),
        (dict(num_samples=3), "at least 64"),
        (dict(only=["steins"]), "no checks"),
    ],
)
def test_arguments_that_do_not_go_together(given, match):
    with pytest.raises(ValueError, match=match):
        vi.check(KEY, gaussian, Q, **given)


def test_every_finding_has_a_test():
    source = Path(__file__).read_text()
    assert [name for name in FINDINGS if f'"{name}"' not in source] == []
