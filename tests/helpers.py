"""What several test files use: distances in standard errors, finite differences, the members of a
folder.
"""

import functools
import importlib
import pkgutil

import jax
import jax.numpy as jnp
import numpy as np


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
    """The modules of a package that hold one member each, by name: a new file inherits the laws."""
    names = [m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_")]
    assert names, f"{package.__name__} has no members"
    return {name: importlib.import_module(f"{package.__name__}.{name}") for name in names}


def bounds(package):
    """name -> bound as estimators know it: the function itself, or a partial of it with the numbers
    that it wants.
    """
    numbers = {
        "ciwae": {"beta": 0.3},
        "jackknife": {"order": 0},
        "miwae": {"num_groups": 1},
        "renyi": {"alpha": 0.5},
        "sumo": {"stop": 2.0},
        "vr_iwae": {"alpha": 0.3},
    }
    found = {name: module.bound for name, module in members(package).items()}
    return {
        name: functools.partial(bound, **numbers[name]) if name in numbers else bound
        for name, bound in found.items()
    }


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
