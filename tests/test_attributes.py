"""Attributes of functions, and the estimators that ask a bound for one: bounds of one's own, and
ours behind `functools.partial`, `functools.wraps` and `jax.jit`.
"""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from helpers import bounds, members, valid_bounds

import vi_jax as vi
from vi_jax.attributes import attribute, declare, keywords, name_of
from vi_jax.distributions import Bernoulli

BOUNDS = bounds()
ESTIMATORS = members(vi.estimators)
K = 4
OLD_NAMES = {vi.bounds: "bound", vi.estimators: "estimate", vi.families: "family"}
MEMBERS = [(package, name) for package in OLD_NAMES for name in members(package)]


def wrapped(bound):
    """A function around a bound, with the bound's attributes."""

    @functools.wraps(bound)
    def logged(log_w):
        return bound(log_w)

    return logged


def own(bound):
    """A function of one's own that shares nothing with a bound but its values, and the attributes
    that are set on it by hand.
    """
    needed = ("smooth", "linear", "log_mean", "grouped", "path_factor")
    given = {name: attribute(bound, name) for name in needed if attribute(bound, name)}
    factor = given.get("path_factor")
    if factor is not None:
        given["path_factor"] = functools.partial(
            lambda weights, numbers: factor(weights, **numbers),
            numbers={name: value for name, value in keywords(bound).items() if name == "alpha"},
        )

    @declare(**given)
    def mine(log_w):
        return bound(log_w)

    return mine


PARAMS = {"logits": jnp.array([0.3, -1.0]), "w": jnp.array(0.8)}
LAYERS = (wrapped, jax.jit, functools.partial, own)


def guide_of(estimator, params):
    """A guide that an estimator is valid for."""
    if estimator is vi.estimators.stratified:
        loc = params["logits"] + jnp.array([[0.0], [0.5]])
        of_mixture = {"logits": jnp.zeros(2), "loc": loc, "log_scale": jnp.zeros((2, 2))}
        return vi.families.mixture(2).guide(of_mixture)
    if getattr(estimator, "reparameterised", True):
        return dist.Normal(params["logits"], 0.7).to_event(1)
    return Bernoulli(params["logits"]).to_event(1)


def value_and_gradient(estimator, bound, params):
    def value(params):
        q = guide_of(estimator, params)

        def log_joint(z):
            return dist.Normal(params["w"] * z.sum(), 0.8).log_prob(0.7) - 0.5 * (z**2).sum()

        return estimator(jax.random.key(0), bound, log_joint, q, num_samples=K)

    return jax.value_and_grad(value)(params)


def gradient(estimator, bound):
    compiled = jax.jit(functools.partial(value_and_gradient, estimator, bound))
    return jax.tree.leaves(compiled(PARAMS))


@pytest.mark.cases(
    rest="slow",
    default=["stl", "score", "vimco", "enumerated"],
    integration=["dreg", "rebar", "gdreg"],
)
@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_an_estimator_takes_a_bound_in_any_clothes(name):
    estimator = ESTIMATORS[name]
    bound = BOUNDS[valid_bounds(estimator, BOUNDS)[0]]

    @jax.jit
    def of_each(params):  # one program for all: each has a key of its own, of the same seed
        return [
            value_and_gradient(estimator, each, params)
            for each in (bound, *(layer(bound) for layer in LAYERS))
        ]

    plain, *others = of_each(PARAMS)
    for layer, other in zip(LAYERS, others, strict=True):
        for ours, theirs in zip(jax.tree.leaves(other), jax.tree.leaves(plain), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6, err_msg=str(layer))


@pytest.mark.integration
def test_a_wrapped_iwae_of_numbers_is_known_to_dreg():
    """The numbers are found behind the wrapper, and numbers that cannot be found are asked for."""
    plain = functools.partial(vi.bounds.vr_iwae, alpha=0.4)
    expected = gradient(vi.estimators.dreg, plain)
    found = gradient(vi.estimators.dreg, jax.jit(wrapped(plain)))
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)

    @functools.wraps(vi.bounds.vr_iwae)
    def hidden(log_w):
        return vi.bounds.vr_iwae(log_w, alpha=0.4)

    with pytest.raises(ValueError, match=r"path_factor of vr_iwae .*alpha.*functools.partial"):
        gradient(vi.estimators.dreg, hidden)


@pytest.mark.parametrize("name", sorted(name for name in ESTIMATORS if ESTIMATORS[name].needs))
def test_a_bound_of_ones_own_that_says_nothing_is_refused(name):
    def mine(log_w):
        return log_w.mean()

    needs = ESTIMATORS[name].needs
    with pytest.raises(ValueError, match=rf"{name} is valid for .*not for mine: .*`{needs}`"):
        gradient(ESTIMATORS[name], mine)


def test_every_need_is_an_attribute_of_some_bound():
    for name, estimator in ESTIMATORS.items():
        assert valid_bounds(estimator, BOUNDS), f"no bound has what {name} needs"


def test_attributes_are_looked_up_from_the_outside_in():
    @declare(side="lower", scale=1.0)
    def f(x, *, a=0, b=0):
        return x + a + b

    assert declare(scale=2.0)(f) is f
    assert f.scale == 2.0
    outer = functools.partial(functools.partial(f, a=1, b=2), a=3)
    assert keywords(outer) == {"a": 3, "b": 2}
    assert attribute(outer, "scale") == 2.0
    assert attribute(outer, "absent") is None
    assert attribute(outer, "absent", 5) == 5
    assert name_of(outer) == "f"
    outer.scale = 4.0
    assert attribute(jax.jit(outer), "scale") == 4.0


@pytest.mark.parametrize(("package", "name"), MEMBERS)
def test_the_old_name_of_a_function_works_and_says_the_new_one(package, name):
    module = importlib.import_module(f"{package.__name__}.{name}")
    old = OLD_NAMES[package]
    with pytest.warns(DeprecationWarning, match=rf"{name}\.{old} is now called {name};"):
        assert getattr(module, old) is getattr(package, name)
    with pytest.raises(AttributeError, match="no attribute 'bonud'"):
        _ = module.bonud
