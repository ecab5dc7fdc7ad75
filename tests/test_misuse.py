"""Wrong arguments in code: each is answered with a TypeError or a ValueError of one line that says
what came and what was expected.
"""

import functools
import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest

import vi_jax as vi
from vi_jax import arguments

KEY = jax.random.key(0)
NORMAL = dist.Normal(0.0, 1.0)
BERNOULLI = vi.distributions.Bernoulli(jnp.zeros(()))
VECTOR = dist.Normal(jnp.zeros(2), 1.0).to_event(1)
MIXTURE = dist.MixtureSameFamily(dist.Categorical(jnp.ones(2) / 2), dist.Normal(jnp.zeros(2), 1.0))
ESTIMATORS = {name: getattr(vi.estimators, name) for name in vi.estimators.__all__}
BOUNDS = [
    name
    for name in vi.bounds.__all__
    if next(iter(inspect.signature(getattr(vi.bounds, name)).parameters)) == "log_w"
]
NOT_FOR_BERNOULLI = ("reparam", "stl", "dreg", "gdreg", "piwae")
BOUND_OF = {
    "dreg": vi.bounds.iwae,
    "vimco": vi.bounds.iwae,
    "gdreg": vi.bounds.iwae,
    "piwae": functools.partial(vi.bounds.miwae, num_groups=1),
}


@pytest.fixture(autouse=True)
def _keys_are_used_again():
    """One key for all of these calls, most of which never draw."""
    with jax.debug_key_reuse(False):
        yield


def log_joint(z):
    return -0.5 * jnp.sum(z**2)


def model():
    numpyro.sample("x", dist.Normal(0.0, 1.0))


def says(function, *words):
    """Calls what has to be refused; returns the message, of one line, once these words are in
    it.
    """
    with pytest.raises((TypeError, ValueError)) as caught:
        function()
    text = str(caught.value)
    assert text.strip()
    assert "\n" not in text
    assert "<function" not in text
    assert "object at 0x" not in text
    for word in words:
        assert word in text, text
    return text


def guide_of(name):
    """A guide that an estimator is valid for."""
    if name == "price":
        return VECTOR
    if name == "stratified":
        family = vi.families.mixture(2)
        return family.guide(family.init(KEY))
    return NORMAL if name in NOT_FOR_BERNOULLI else BERNOULLI


# --- estimators and bounds

KEYS = {
    "None": (None, "PRNG key as its first argument, jax.random.key(0); got None"),
    "a number": (0, "got 0"),
    "a seed's array": (np.zeros(2), "got an array of float64 and shape (2,)"),
    "text": ("0", "got the text '0'"),
    "a batch": (jax.random.split(KEY, 3), "a batch of keys of shape (3,)"),
}
COUNTS = (0, -1, 1.5, True, None, "3", (3,), np.zeros(3))
RETURNS = {
    "None": (lambda z: None, "log_joint returns None"),
    "a vector": (lambda z: jnp.zeros(3), "got shapes (3,)"),
    "an int": (lambda z: 1, "log_joint returns int"),
    "integers": (lambda z: jnp.int32(z.sum()), "log_joint returns int32"),
    "a truth value": (lambda z: z.sum() > 0, "log_joint returns bool"),
    "a complex number": (lambda z: 1j * z.sum(), "log_joint returns complex64"),
    "text": (lambda z: "a", "log_joint returns the text 'a'"),
    "a tuple": (lambda z: (z, z), "log_joint returns an object of type tuple"),
    "a distribution": (lambda z: NORMAL, "log_joint returns an object of type Normal"),
}


@pytest.mark.cases(rest=None, integration=["price", "dreg", "stratified"])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_an_estimator_refuses_what_it_cannot_use(name):
    estimate = ESTIMATORS[name]
    bound = BOUND_OF.get(name, vi.bounds.elbo)
    q = guide_of(name)
    assert jnp.isfinite(estimate(KEY, bound, log_joint, q, num_samples=4)), "the right call works"
    uses_key = name != "enumerated"
    for key, words in KEYS.values() if uses_key else ():
        says(lambda key=key: estimate(key, bound, log_joint, q, num_samples=4), name, words)
    for count in COUNTS if uses_key else ():
        says(lambda count=count: estimate(KEY, bound, log_joint, q, num_samples=count), "num_samp")
    says(lambda: estimate(KEY, bound, q, log_joint, num_samples=4), name, "function log_joint")
    says(lambda: estimate(KEY, log_joint, bound, q, num_samples=4), name)
    says(lambda: estimate(KEY, q, log_joint, bound, num_samples=4), name, "as the bound")
    says(lambda: estimate(KEY, "elbo", log_joint, q, num_samples=4), name, "the text 'elbo'")
    says(lambda: estimate(KEY, vi.bounds, log_joint, q, num_samples=4), name, "type module")
    says(lambda: estimate(KEY, bound, log_joint, type(q), num_samples=4), name, "the class ")
    says(lambda: estimate(KEY, bound, log_joint, None, num_samples=4), name, "got None")
    says(lambda: estimate(KEY, bound, None, q, num_samples=4), name, "got None")
    family = vi.families.mean_field(2)
    says(lambda: estimate(KEY, bound, log_joint, family, num_samples=4), "family.guide(params)")


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("kind", RETURNS)
def test_an_estimator_refuses_a_density_that_returns(kind, name):
    density, words = RETURNS[kind]
    bound = BOUND_OF.get(name, vi.bounds.elbo)
    says(lambda: ESTIMATORS[name](KEY, bound, density, guide_of(name), num_samples=4), words)


EVIDENCE = {
    "elbo": lambda key, f, q, count: vi.elbo(key, f, q, num_samples=count),
    "iwae": lambda key, f, q, count: vi.iwae(key, f, q, num_samples=count),
    "analytic_elbo": lambda key, f, q, count: vi.analytic_elbo(
        key, f, q, NORMAL, num_samples=count
    ),
}


@pytest.mark.parametrize("name", EVIDENCE)
def test_the_bounds_in_one_call_refuse_what_they_cannot_use(name):
    call = EVIDENCE[name]
    for key, words in KEYS.values():
        says(lambda key=key: call(key, log_joint, NORMAL, 4), name, words)
    for count in COUNTS:
        says(lambda count=count: call(KEY, log_joint, NORMAL, count), "num_samples")
    for density, words in RETURNS.values():
        says(lambda density=density: call(KEY, density, NORMAL, 4), words.split(" ", 1)[1])
    says(lambda: call(KEY, NORMAL, log_joint, 4), name, "look at the order of the arguments")
    says(lambda: call(log_joint, NORMAL, KEY, 4), name, "PRNG key as its first argument")
    says(lambda: call(KEY, log_joint, dist.Normal, 4), name, "the class Normal")
    says(lambda: call(KEY, 3.0, NORMAL, 4), name, "got 3.0")


def test_an_analytic_elbo_has_a_prior_of_one_space():
    for prior, words in (
        (None, "prior to be a guide"),
        (dist.Normal, "the class Normal"),
        (log_joint, "the function log_joint"),
        (VECTOR, "event shapes () and (2,)"),
    ):
        says(lambda prior=prior: vi.analytic_elbo(KEY, log_joint, NORMAL, prior), words)


@pytest.mark.parametrize("name", BOUNDS)
@pytest.mark.parametrize(
    ("log_w", "words"),
    [
        (None, "got None"),
        ("a", "got the text 'a'"),
        (3.0, "got 3.0"),
        ([1.0, 2.0], "an object of type list"),
        (NORMAL, "an object of type Normal"),
        (log_joint, "the function log_joint"),
        (jnp.zeros(()), "of shape [K], K >= 1; got ()"),
        (jnp.zeros((2, 2)), "got (2, 2)"),
        (jnp.zeros(0), "got (0,)"),
        (jnp.arange(4), "got int32"),
        (1j * jnp.ones(4), "got complex64"),
    ],
)
def test_a_bound_refuses_what_is_no_log_weights(name, log_w, words):
    bound = getattr(vi.bounds, name)
    numbers = {
        parameter.name: {"num_groups": 1, "order": 0}.get(parameter.name, 0.5)
        for parameter in list(inspect.signature(bound).parameters.values())[1:]
        if parameter.default is inspect.Parameter.empty
    }
    says(lambda: bound(log_w, **numbers), words)


# --- KL


def normals(*shape):
    return dist.Normal(jnp.zeros(shape), 1.0)


PAIRS = {
    "batches": (normals(3), normals(4), "batch shapes that broadcast; got (3,) and (4,)"),
    "events": (normals(3).to_event(1), normals(4).to_event(1), "event shapes (3,) and (4,)"),
    "None": (None, NORMAL, "q to be a distribution; got None"),
    "no p": (NORMAL, None, "p to be a distribution; got None"),
    "a class": (dist.Normal, NORMAL, "the class Normal"),
    "a function": (NORMAL, log_joint, "the function log_joint"),
    "a key": (KEY, NORMAL, "got an array of key"),
}
CLOSED = {
    "kl_divergence": vi.kl_divergence,
    "kl_mixture_upper_bound": vi.kl.kl_mixture_upper_bound,
    "kl_mixture_lower_bound": vi.kl.kl_mixture_lower_bound,
    "kl_mixture_variational": vi.kl.kl_mixture_variational,
}


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("name", CLOSED)
def test_a_closed_kl_refuses(name, pair):
    q, p, words = PAIRS[pair]
    says(lambda: CLOSED[name](q, p), name, words)


def test_kl_per_dimension_refuses_shapes_that_differ():
    q, p, words = PAIRS["events"]
    says(lambda: vi.kl.kl_per_dimension(q, p), "kl_per_dimension", words)


@pytest.mark.parametrize("name", ["kl_monte_carlo", "kl_monte_carlo_controlled"])
def test_a_kl_by_samples_refuses(name):
    estimate = getattr(vi.kl, name)
    for key, words in KEYS.values():
        says(lambda key=key: estimate(key, NORMAL, NORMAL, num_samples=4), name, words)
    for count in (*COUNTS, 1):
        says(lambda count=count: estimate(KEY, NORMAL, NORMAL, num_samples=count), "of at least 2")
    for kind in ("batches", "events"):
        q, p, words = PAIRS[kind]
        says(lambda q=q, p=p: estimate(KEY, q, p, num_samples=4), name, words)
    says(lambda: estimate(KEY, NORMAL, None, num_samples=4), "p to be a guide", "got None")
    says(lambda: estimate(KEY, NORMAL, dist.Normal, num_samples=4), "the class Normal")
    says(lambda: estimate(NORMAL, NORMAL, KEY, num_samples=4), "PRNG key as its first argument")


def test_the_other_kls_refuse():
    zeros = jnp.zeros
    says(lambda: vi.kl_standard_normal(zeros(3), zeros(4)), "got (3,) and (4,)")
    says(lambda: vi.kl_standard_normal(None, zeros(4)), "loc to be an array; got None")
    says(lambda: vi.kl_standard_normal(NORMAL, zeros(4)), "an object of type Normal")
    says(lambda: vi.kl.kl_mixture_upper_bound(MIXTURE, NORMAL, num_steps=1.5), "num_steps", "1.5")


# --- fit

TARGET = vi.targets.from_log_density(log_joint, 2)
FIT = {
    "key None": (lambda: vi.fit(None, TARGET), "fit expects a PRNG key"),
    "key an int": (lambda: vi.fit(0, TARGET), "got 0"),
    "swapped": (lambda: vi.fit(TARGET, KEY), "got an object of type Target"),
    "key missing": (lambda: vi.fit(TARGET), "target"),
    "a density": (lambda: vi.fit(KEY, log_joint), "vi.targets.from_log_density"),
    "a model": (lambda: vi.fit(KEY, model), "the function model", "from_numpyro(model, *data)"),
    "no target": (lambda: vi.fit(KEY, None), "got None as the target"),
    "a distribution": (lambda: vi.fit(KEY, NORMAL), "an object of type Normal as the target"),
    "method a name": (lambda: vi.fit(KEY, TARGET, "advi"), "vi.methods.advi()", "text 'advi'"),
    "a factory": (lambda: vi.fit(KEY, TARGET, vi.methods.bam), "vi.methods.bam()"),
    "a family": (lambda: vi.fit(KEY, TARGET, vi.families.full_rank(2)), "type Family"),
    "report": (lambda: vi.fit(KEY, TARGET, report="x"), "report to be a function"),
    "on_phase": (lambda: vi.fit(KEY, TARGET, on_phase=3), "on_phase to be a function"),
    "combine": (lambda: vi.fit(KEY, TARGET, combine=None), "one of best, stack; got None"),
    "start text": (lambda: vi.fit(KEY, TARGET, start="x"), "start has to be an array"),
    "start a dict": (lambda: vi.fit(KEY, TARGET, start={"x": 1}), "an object of type dict"),
    "mesh": (lambda: vi.fit(KEY, TARGET, vi.methods.laplace(), mesh=3), "vi.shard.make_mesh()"),
    "density None": (lambda: vi.targets.from_log_density(None, 2), "got None"),
    "density an array": (lambda: vi.targets.from_log_density(jnp.zeros(2), 2), "an array of"),
    "model None": (lambda: vi.targets.from_numpyro(None), "model to be a function; got None"),
    "model an array": (lambda: vi.targets.from_numpyro(jnp.zeros(2)), "an array of"),
    "model a distribution": (lambda: vi.targets.from_numpyro(NORMAL), "type Normal"),
}


@pytest.mark.parametrize("case", FIT)
def test_fit_refuses(case):
    function, *words = FIT[case]
    says(function, *words)


@pytest.mark.parametrize("name", ["num_draws", "num_starts", "report_every"])
@pytest.mark.parametrize("count", COUNTS)
def test_fit_refuses_numbers_that_count_nothing(name, count):
    if name in ("report_every", "num_draws") and count is None:
        return  # by time, by cost
    options = {"report": lambda step, value: None, name: count}
    says(lambda: vi.fit(KEY, TARGET, vi.methods.laplace(), **options), name)


def test_a_target_of_rows_refuses_the_same():
    def of_row(theta, z, x):
        return -0.5 * ((z - theta) ** 2 + (x - z) ** 2).sum(-1)

    target = vi.targets.from_local_rows(log_joint, of_row, jnp.zeros((10, 1)), 1, 1, batch_size=5)
    says(lambda: vi.fit(None, target), "fit expects a PRNG key")
    says(lambda: vi.fit(KEY, target, num_draws=0), "num_draws")
    says(lambda: vi.fit(KEY, target, num_draws=24), "num_draws")
    says(lambda: vi.fit(KEY, target, report="x"), "report to be a function")


# --- training

DATA = jnp.zeros((20, 4))
VAE = vi.models.vae((4,), num_latents=2, hidden=(4,))
LOSS = vi.losses.negative_elbo(VAE)
ADAM = optax.adam(1e-3)


def train(*, key=KEY, vae=VAE, loss=LOSS, optimizer=ADAM, data=DATA, **numbers):
    return vi.train(key, vae, loss, optimizer, data, **{"num_steps": 2, "batch_size": 5, **numbers})


TRAIN = {
    "model None": (dict(vae=None), "train expects a model; got None"),
    "model its factory": (dict(vae=vi.models.vae), "the function vae: call its factory"),
    "model and loss swapped": (dict(vae=LOSS, loss=VAE), "train expects a model"),
    "model a distribution": (dict(vae=NORMAL), "an object of type Normal"),
    "loss None": (dict(loss=None), "loss to be a function; got None"),
    "loss text": (dict(loss="elbo"), "the text 'elbo'"),
    "loss a model": (dict(loss=VAE), "an object of type Model"),
    "optimizer None": (dict(optimizer=None), "an optimizer with init and update; got None"),
    "optimizer text": (dict(optimizer="adam"), "the text 'adam'"),
    "optimizer its factory": (dict(optimizer=optax.adam), "such as optax.adam(1e-3)"),
    "optimizer a rate": (dict(optimizer=1e-3), "got 0.001"),
    "data None": (dict(data=None), "data to be an array [N, ...]", "got None"),
    "data text": (dict(data="x"), "the text 'x'"),
    "data a list": (dict(data=[1.0, 2.0]), "got 1.0"),
    "data a number": (dict(data=jnp.zeros(())), "got shapes ()"),
    "no data": (dict(data=jnp.zeros((0, 4))), "got shapes (0, 4)"),
    "data of two lengths": (
        dict(data=(jnp.zeros((3, 4)), jnp.zeros((2, 4)))),
        "one N >= 1; got shapes (3, 4), (2, 4)",
    ),
    "data of another shape": (dict(data=jnp.zeros((20, 5))), "(4,)", "(5,)"),
    "too many steps": (dict(num_steps=10**12), "0 to 2,147,483,647; got 1000000000000"),
}


@pytest.mark.parametrize("case", TRAIN)
def test_train_refuses(case):
    changes, *words = TRAIN[case]
    says(lambda: train(**changes), *words)


def test_train_refuses_keys_and_numbers():
    for key, words in KEYS.values():
        says(lambda key=key: train(key=key), "train", words)
    for name in ("num_steps", "batch_size", "log_every"):
        for count in COUNTS:
            if name == "num_steps" and count is COUNTS[0]:
                continue  # 0: the parameters as they start
            says(lambda name=name, count=count: train(**{name: count}), name)


PARTS = {
    "make_step loss": (lambda: vi.make_step(None, ADAM), "make_step", "got None"),
    "make_step optimizer": (lambda: vi.make_step(LOSS, optax.adam), "optax.adam(1e-3)"),
    "make_step swapped": (lambda: vi.make_step(ADAM, LOSS), "loss to be a function"),
    "make_step a model": (lambda: vi.make_step(VAE, ADAM), "an object of type Model"),
    "make_step norms": (lambda: vi.make_step(LOSS, ADAM, grad_norm_every=0), "grad_norm_every"),
    "make_step skips": (lambda: vi.make_step(LOSS, ADAM, max_skipped=-1), "max_skipped"),
    "init_state key": (lambda: vi.init_state(None, VAE.init, ADAM), "init_state", "got None"),
    "init_state a model": (lambda: vi.init_state(KEY, VAE, ADAM), "init to be a function"),
    "init_state optimizer": (lambda: vi.init_state(KEY, VAE.init, optax.adam), "optax.adam(1"),
    **{
        f"make_run {count!r}": (
            lambda count=count: vi.make_run(vi.make_step(LOSS, ADAM), batch_size=count),
            "batch_size",
        )
        for count in COUNTS
    },
    "check swapped": (lambda: vi.check(KEY, NORMAL, log_joint), "check expects q to be a guide"),
    "check key": (lambda: vi.check(None, log_joint, NORMAL), "check expects a PRNG key"),
    "check class": (lambda: vi.check(KEY, log_joint, dist.Normal), "the class Normal"),
    "check few": (lambda: vi.check(KEY, log_joint, NORMAL, num_samples=63), "at least 64"),
    "check half": (lambda: vi.check(KEY, log_joint, NORMAL, num_samples=64.5), "got 64.5"),
}


@pytest.mark.parametrize("case", PARTS)
def test_the_parts_refuse(case):
    function, *words = PARTS[case]
    says(function, *words)


# --- what is meant well is taken


@pytest.mark.integration
def test_a_raw_key_is_the_typed_key_of_its_seed():
    raw = jax.random.PRNGKey(3)
    typed = jax.random.key(3)
    for key in (raw, np.asarray(raw)):
        np.testing.assert_array_equal(
            vi.elbo(key, log_joint, NORMAL, num_samples=3),
            vi.elbo(typed, log_joint, NORMAL, num_samples=3),
        )
    value, _ = vi.kl_monte_carlo(raw, NORMAL, dist.Normal(1.0, 1.0), num_samples=3)
    assert value == vi.kl_monte_carlo(typed, NORMAL, dist.Normal(1.0, 1.0), num_samples=3).value
    states = [vi.init_state(key, VAE.init, ADAM) for key in (raw, typed)]
    assert states[0].key == states[1].key
    np.testing.assert_array_equal(*(jax.tree.leaves(state.params)[0] for state in states))
    with jax.default_prng_impl("rbg"):
        assert arguments.as_key(jax.random.PRNGKey(3), "test") == jax.random.key(3)


@pytest.mark.integration
def test_keys_and_counts_of_other_kinds_are_taken_under_transformations():
    keys = jax.random.split(KEY, 3)
    values = jax.jit(jax.vmap(lambda key: vi.elbo(key, log_joint, VECTOR, num_samples=2)))(keys)
    assert values.shape == (3,)
    assert jnp.isfinite(vi.elbo(KEY, log_joint, NORMAL, num_samples=np.int64(2)))
    assert jnp.isfinite(vi.elbo(KEY, lambda z: -1.0, NORMAL))
    assert jnp.isfinite(vi.elbo(KEY, lambda z: np.float32(-1.0), NORMAL))


def test_a_count_that_is_traced_is_refused():
    says(
        lambda: jax.jit(lambda k: vi.elbo(KEY, log_joint, NORMAL, num_samples=k))(3),
        "num_samples",
        "an array of int32 and shape ()",
    )


def test_every_sentence_of_the_checks_is_one(monkeypatch):
    """Their text has no placeholder left, and ends as a sentence."""
    source = inspect.getsource(arguments)
    assert re.search(r"raise (TypeError|ValueError)", source)
    for text in (
        says(lambda: arguments.as_key(None, "f")),
        says(lambda: arguments.as_count(0, "n", most=5)),
        says(lambda: arguments.require_rows(None, "f")),
    ):
        assert text.endswith(".")
