"""Guides of local latent variables: a table, a table coupled to the global ones, or an encoder.

Members are `LocalGuides(init, guide, table)`; `vi.local.local_advi` takes one.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpyro.distributions as dist

from vi_jax import families, linalg
from vi_jax.families import mean_field
from vi_jax.kl.gaussians import is_diagonal
from vi_jax.types import Array, Family, Params

Families = Callable[[int], Family]


class LocalGuides(NamedTuple):
    """q(v_n | u), v_n [d] the latents of a row and u [D] those that all rows share,
    unconstrained.
    """

    # (key, D, d) -> parameters: of one row of a table, or of the encoder
    init: Callable[[Array, int, int], Params]
    # (d, parameters, row, q(u), u) -> q over v_n, Gaussian or not
    guide: Callable[[int, Params, Any, Any, Array], Any]
    table: bool  # whether the parameters are a row's own
    # (function of this module, name of the family), of which it can be made anew
    made_by: tuple[str, str] | None = None


def table(family: Families = mean_field) -> LocalGuides:
    """prod_n q(v_n; lambda_n): parameters for each row, nothing shared.

    Args:
      family: d -> Family of one row's latents.
    """

    def guide(size: int, params: Params, row: Any, q: Any, u: Array) -> Any:
        del row, q, u
        return family(size).guide(params)

    def init(key: Array, num_shared: int, size: int) -> Params:
        del num_shared
        return family(size).init(key)

    return LocalGuides(init, guide, table=True, made_by=_made_by("table", family))


def coupled_table(family: Families = mean_field) -> LocalGuides:
    """prod_n q(v_n | u): parameters for each row, its location linear in what all rows share (the
    sparsity of Tan & Nott 2018): loc_n + C_n e(u), e(u) the standardised u under q(u).

    With a full-rank q(u) this is exact for a Gaussian hierarchy, where a plain table makes q(u) too
    narrow: it cannot say that the rows move with what they share. It costs d D numbers a row.

    Args:
      family: d -> Family with a "loc" [d] among its parameters.
    """

    def init(key: Array, num_shared: int, size: int) -> Params:
        params = family(size).init(key)
        if not isinstance(params, dict) or getattr(params.get("loc"), "shape", None) != (size,):
            raise ValueError(
                'coupled_table expects a family with a "loc" [d] among its parameters; take '
                "table() for this one."
            )
        return {**params, "slope": jnp.zeros((size, num_shared), params["loc"].dtype)}

    def guide(size: int, params: Params, row: Any, q: Any, u: Array) -> Any:
        del row
        own = {name: value for name, value in params.items() if name != "slope"}
        return family(size).guide(
            {**own, "loc": params["loc"] + params["slope"] @ _standardised(q, u)}
        )

    return LocalGuides(init, guide, table=True, made_by=_made_by("coupled_table", family))


def encoder(
    init: Callable[[Array], Params],
    apply: Callable[[Params, Any, Array], Params],
    family: Families = mean_field,
) -> LocalGuides:
    """prod_n q(v_n; f(x_n, u)): one network for all rows, trained with what they share.

    Args:
      init: key -> parameters of the network.
      apply: (parameters, row, u [D]) -> the family's parameters for that one row, e.g. {"loc": [d],
        "log_scale": [d]}; the row is one of the data's (of a NumPyro model: its number). It may
        leave u out.
      family: d -> Family.
    """

    def guide(size: int, params: Params, row: Any, q: Any, u: Array) -> Any:
        del q
        return family(size).guide(apply(params, row, u))

    return LocalGuides(lambda key, num_shared, size: init(key), guide, table=False)


def _made_by(name: str, family: Families) -> tuple[str, str] | None:
    """How the guides of rows are made; None with a family that is not one of vi.families."""
    called = getattr(family, "__name__", "")
    return (name, called) if getattr(families, called, None) is family else None


def _standardised(q: Any, u: Array) -> Array:
    """e [D] of u = m + L e."""
    if is_diagonal(q):
        return (u - q.base_dist.loc) / q.base_dist.scale
    if isinstance(q, dist.MultivariateNormal):
        return linalg.solve_triangular(q.scale_tril, u - q.loc, lower=True)
    raise ValueError(
        "coupled_table expects a mean-field or full-rank Gaussian over what rows share; got "
        f"{type(q).__name__}."
    )
