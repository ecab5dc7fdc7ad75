"""Which bounds an estimator is valid for: attributes that it asks the bound for."""

import inspect
from collections.abc import Callable

from vi_jax.attributes import attribute, keywords, name_of
from vi_jax.types import Array

# attribute that an estimator needs -> the bounds of vi_jax.bounds that have it, in words
VALID_FOR = {
    "smooth": "bounds that are twice differentiable in log_w",
    "linear": "the elbo",
    "log_mean": "iwae",
    "grouped": "miwae",
    "path_factor": "iwae and vr_iwae",
}


def require_bound(
    bound: Callable[[Array], Array], estimator: Callable[..., Array], why: str
) -> None:
    """Raises ValueError for a bound without the attribute `estimator.needs`, with the reason."""
    needs = attribute(estimator, "needs")
    if not attribute(bound, needs, False):
        name = name_of(bound)
        raise ValueError(
            f"{name_of(estimator)} is valid for {VALID_FOR[needs]}, not for {name}: {why} A bound "
            f"of your own that qualifies says so by its attribute `{needs}` (see vi_jax.bounds)."
        )


def path_factor(bound: Callable[[Array], Array], weights: Array) -> Array | None:
    """1 - h_k / g_k [K], with g_k = `weights` and h_k the bound's first and second derivatives in
    log w_k; None where the bound does not know it in closed form.

    Raises:
      ValueError: it depends on numbers of the bound that were not given by `functools.partial`.
    """
    factor = attribute(bound, "path_factor")
    if factor is None:
        return None
    expected = inspect.signature(factor).parameters
    numbers = {name: value for name, value in keywords(bound).items() if name in expected}
    try:
        inspect.signature(factor).bind(weights, **numbers)
    except TypeError as error:
        raise ValueError(
            f"the path_factor of {name_of(bound)} has to know the bound's numbers ({error}): give "
            "them by functools.partial(bound, ...)."
        ) from None
    return factor(weights, **numbers)
