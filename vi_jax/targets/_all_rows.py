"""Checks that a NumPyro model with subsampled plates runs with all of their rows."""

import re
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import checkify
from numpyro import handlers
from numpyro.infer import init_to_uniform

from vi_jax.targets.local_numpyro import frame_of, is_subsampled, site_log_prob
from vi_jax.targets.target import TargetError
from vi_jax.targets.tracing import first_line, in_one_sentence
from vi_jax.types import Array

Trace = dict[str, dict[str, Any]]


def first_trace(
    model: Callable[..., Any],
    args: Any,
    kwargs: Any,
    key: Array,
    *,
    num_rows: int | None = 0,
    last: bool = False,
) -> Trace:
    """A trace at latents near 0, unconstrained (an improper prior has nothing to draw), and at the
    first rows of subsampled plates.

    Args:
      num_rows: of each such plate; 0 for its subsample_size, None for all.
      last: the last rows instead of the first.
    """

    def first(site: dict[str, Any]) -> Any:
        if not is_subsampled(site):
            return init_to_uniform(site)
        size, batch_size = site["args"]
        num = size if num_rows is None else num_rows or batch_size
        return jnp.arange(size - num, size) if last else jnp.arange(num)

    seeded = handlers.substitute(handlers.seed(model, key), substitute_fn=first)
    return handlers.trace(seeded).get_trace(*args, **kwargs)


def require_all_rows(
    model: Callable[..., Any], args: Any, kwargs: Any, plates: dict[str, tuple[int, int]]
) -> None:
    """Raises where a model's data are those of one batch: it would be fitted to them as if they
    were all rows.

    Args:
      plates: {name: (rows, rows of a batch)} of the subsampled ones.

    Raises:
      TargetError: it cannot be evaluated with all rows of its plates, a batch of one row is given
        one row of data, or the index of the last rows lies beyond the data.
    """
    _shapes(model, args, kwargs, num_rows=0)  # errors of any rows are raised as such
    try:
        sites = _shapes(model, args, kwargs, num_rows=None)
    except (TypeError, ValueError) as error:
        raise _refusal(next(iter(plates)), first_line(error)) from error
    for plate in [name for name, (_, batch_size) in plates.items() if batch_size == 1]:
        for name, site in sites.items():
            # else a wrong shape; one row goes with any number
            if site["is_observed"] and _num_rows_of(site, plate) == 1:
                raise _refusal(
                    plate,
                    f"the observed site {name!r} has one row of data, {plates[plate][0]:,} were "
                    "expected",
                )
    _require_last_rows(model, args, kwargs, plates)


def _require_last_rows(
    model: Callable[..., Any], args: Any, kwargs: Any, plates: dict[str, tuple[int, int]]
) -> None:
    """Raises where data[index] is beyond the rows that it has: JAX takes its last row again for
    each, and says nothing.

    An index beyond an axis as long as the plate is the model's own affair (the row after the last,
    filled up). Within a caller's own jit there are no numbers to look at, and nothing is said.
    """

    def observed(key: Array) -> list[Array]:
        trace = first_trace(model, args, kwargs, key, last=True)
        return [
            site["value"]
            for site in trace.values()
            if site["type"] == "sample" and site["is_observed"]
        ]

    error, _ = checkify.checkify(observed, errors=checkify.index_checks)(jax.random.key(0))
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(error)):
        return
    beyond = re.search(
        r"index (\d+) is out of bounds for axis \d+ with size (\d+)", error.get() or ""
    )
    for plate, (size, _) in plates.items():
        if beyond and int(beyond[2]) < size and int(beyond[1]) < size:
            raise _refusal(
                plate,
                f"row {beyond[1]} is taken of an array of {beyond[2]}; the plate has {size:,}",
            )


def _refusal(plate: str, reason: str) -> TargetError:
    return TargetError(
        f"the model does not run with all rows of its plate {plate!r}: give it all data, and "
        "take a batch's by the plate's "
        f"index or numpyro.subsample. ({reason})"
    )


def _shapes(model: Callable[..., Any], args: Any, kwargs: Any, *, num_rows: int | None) -> Trace:
    """The sample sites of the model on so many rows; every log density has been traced."""
    sites: Trace = {}

    def evaluate(key: Array) -> list[Array]:
        trace = first_trace(model, args, kwargs, key, num_rows=num_rows)
        sites.update({name: site for name, site in trace.items() if site["type"] == "sample"})
        return [site_log_prob(site) for site in sites.values()]

    with warnings.catch_warnings(), in_one_sentence("the model"):
        warnings.filterwarnings("ignore", message="subsample_size does not match")
        jax.eval_shape(evaluate, jax.random.key(0))
    return sites


def _num_rows_of(site: dict[str, Any], plate: str) -> int | None:
    """Of a site's value; None where it has no axis of the plate."""
    frame = frame_of(site, plate)
    shape = jnp.shape(site["value"])
    if frame is None:
        return None
    axis = len(site["fn"].event_shape) - frame.dim
    if len(shape) < axis:
        return None
    return int(shape[-axis])
