"""What several test files use: distances in standard errors, finite differences, the members of a
folder.
"""

import functools
import importlib
import pkgutil

import jax
import jax.numpy as jnp
import numpy as np

import vi_jax as vi
from vi_jax.attributes import attribute


def assert_mean(samples, expected, *, sigmas=5):
    """The mean over the first axis is the expected one, within so many standard errors (float64
    sums).
    """
    samples = np.asarray(samples, np.float64)
    expected = np.asarray(expected, np.float64)
    assert np.isfinite(samples).all(), "some samples are not finite"
    stderr = samples.std(0, ddof=1) / samples.shape[0] ** 0.5
    off = np.abs(samples.mean(0) - expected) / (stderr + 1e-12)
    assert (off < sigmas).all(), (
        f"the mean is {off.max():.1f} standard errors away: {samples.mean(0)}, not {expected}"
    )


def central_differences(f, theta, step=1e-4):
    """The gradient of a float64 function of a vector, with an error of order step^2."""
    theta = np.asarray(theta, np.float64)
    steps = step * np.eye(theta.size)
    return np.array([(f(theta + h) - f(theta - h)) / (2.0 * step) for h in steps])


def members(package):
    """The functions of a package whose files define one each, by name: a new file inherits the
    laws.
    """
    names = [m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_")]
    assert names, f"{package.__name__} has no members"
    modules = {name: importlib.import_module(f"{package.__name__}.{name}") for name in names}
    return {name: getattr(module, name) for name, module in modules.items()}


def with_example(bound, **numbers):
    """A bound as estimators know it: itself, or a partial of it with its example of numbers, or
    with others.
    """
    given = {**attribute(bound, "example", {}), **numbers}
    return functools.partial(bound, **given) if given else bound


def bounds(**numbers):
    """{name: bound} of vi_jax.bounds with their examples of numbers, or those of `numbers`, by
    name.
    """
    found = members(vi.bounds)
    return {name: with_example(bound, **numbers.get(name, {})) for name, bound in found.items()}


def valid_bounds(estimator, candidates):
    """The names of the bounds that an estimator says it is valid for."""
    needs = attribute(estimator, "needs")
    return [name for name, bound in candidates.items() if not needs or attribute(bound, needs)]


def keys(seed, num_keys):
    """Fresh keys, [num_keys]."""
    return jax.random.split(jax.random.key(seed), num_keys)


def normal(seed, *shape):
    """Standard normal numbers of float64 from a fixed seed, as NumPy."""
    return np.random.default_rng(seed).standard_normal(shape)


def tree_allclose(a, b, **tolerance):
    """Whether two pytrees are alike in structure and near in value."""
    same = jax.tree.structure(a) == jax.tree.structure(b)
    return same and all(
        np.allclose(x, y, **tolerance)
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def tree_equal(a, b):
    """Whether two pytrees are alike to the last bit."""
    same = jax.tree.structure(a) == jax.tree.structure(b)
    return same and all(
        np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def all_finite(tree):
    """Whether every number of a pytree is finite."""
    return all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(tree))


def undeclared(program, z):
    """(site, other) where the density of a site depends on a latent that it is not given."""
    found = []
    for name, visit in program.visits(z).items():
        for other in sorted(visit.before - visit.given):
            numbers = lambda value, name=name, other=other: jax.tree.leaves(  # noqa: E731
                program.at({**z, other: value})[name]
            )
            slopes = jax.jacobian(numbers)(z[other])
            if any(np.any(slope) for slope in jax.tree.leaves(slopes)):
                found.append((name, other))
    return found
