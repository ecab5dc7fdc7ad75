"""The VAE of sequences of unequal length: rows of a table along the steps, one vector of latents.

sequences = {"values": values, "observed": observed}  # [N, T, D] each; nothing observed in padding
columns = [Column("gaussian"), Column("poisson")]
model = sequence_vae(columns, num_latents=4)
params, _ = vi.train(key, model, vi.losses.negative_elbo(model), optax.adam(1e-2), sequences, ...)
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from vi_jax import families
from vi_jax.models import _recurrent
from vi_jax.models._columns import Column, require_columns
from vi_jax.models._kl import KL
from vi_jax.models._layers import standard_normal
from vi_jax.models._sequence_distribution import SequenceDistribution
from vi_jax.models._table import Table
from vi_jax.models._table_distribution import Row
from vi_jax.models.from_densities import from_densities
from vi_jax.models.vae import amortised_form
from vi_jax.types import Array, Family, Model, Params, Prior

__all__ = ["SequenceDistribution", "length_of", "sequence_vae"]

NAME = "sequence_vae"


def sequence_vae(
    columns: Sequence[Column],
    *,
    num_latents: int,
    width: int = 64,
    decoder_width: int | None = None,
    family: Callable[[int], Family] = families.mean_field,
    prior: Prior | None = None,
    kl: KL = "closed",
    num_covariates: int = 0,
    has_exposure: bool = False,
    max_steps: int | None = None,
    heteroscedastic: bool = False,
    min_scale: float = 0.01,
    dtype: Any = None,
) -> Model:
    """p(z) prod_t prod_j p(x_tj | z) over what is observed of a sequence, and q(z | what is
    observed) by gated recurrent units both ways (a sequence auto-encoder: Bowman et al. 2016, sec.
    3; without its feedback of x into the decoder, so that z alone holds what the steps share, and
    with missing values as in MIWAE: Mattei & Frellsen 2019, sec. 2).

    An example is {"values": [T, D], "observed": bool [T, D]}, with "exposure": [T] where counts
    have one and "covariates": [T, C] where the model is conditional. A shorter sequence is padded
    with steps at which nothing is observed. Values under the mask change nothing, to the last bit,
    and steps after the last observed one (`length_of`) nothing beyond the rounding of longer sums.

    The encoder sees each step as that of `table_vae` sees a row, the mask among it. The decoder, a
    recurrent unit that z starts and that is given z and the covariates at each step, puts out the
    parameters of each column's likelihood at each step; T is that of the example.

    Args:
      columns: what each column is; see `table_vae`, and `with_starts` for where they start.
      num_latents: of z.
      width: of the recurrent units of the encoder, each way.
      decoder_width: of the decoder's; that of the encoder if not given.
      family: num_latents -> Family; mean-field Gaussian if not given.
      prior, kl: see `amortised`; N(0, I) if not given.
      num_covariates: C.
      has_exposure: whether examples have "exposure", above 0.
      max_steps: T of what is generated where no example is given, which has one.
      heteroscedastic, min_scale: see `table_vae`.
      dtype: of the activations, see `networks`.

    Returns:
      A Model of parameters {"encoder", "decoder", "likelihood"}, the last by group of columns, with
      "guide" and "prior" as in `amortised`. `densities.decode` is a `SequenceDistribution`.

    Raises:
      ValueError: a size or a column is not what it has to be.
    """
    columns = require_columns(columns)
    decoder_width = width if decoder_width is None else decoder_width
    _require_sizes(num_latents, width, decoder_width, num_covariates, max_steps)
    if not 0.0 < min_scale < 1.0:
        raise ValueError(f"{NAME} expects min_scale between 0 and 1; got {min_scale}.")
    table = Table(columns, num_covariates, has_exposure, min_scale, heteroscedastic)
    chosen = family(num_latents)
    num_encoder_outputs, guide_params = amortised_form(chosen)
    bias = table.bias()[:, 0]
    parts = _Parts(
        table,
        _recurrent.Encoder(width, num_encoder_outputs, dtype),
        _recurrent.Decoder(
            decoder_width,
            table.num_outputs,
            lambda key, shape, dtype=jnp.float32: jnp.asarray(bias, dtype).reshape(shape),
            dtype,
        ),
        chosen,
        guide_params,
        prior,
        num_latents,
        max_steps,
    )
    return from_densities(
        partial(_init, parts),
        partial(_guide, parts),
        partial(_prior, parts),
        partial(_decode, parts),
        lambda params, x, z: _decode(parts, params, x, z).log_prob(x),
        kl=kl,
    )


def length_of(observed: Array) -> Array:
    """Steps of a sequence up to the last at which anything is observed, an int32 scalar.

    Args:
      observed: bool, [T, D].
    """
    steps = jnp.arange(1, observed.shape[0] + 1, dtype=jnp.int32)
    return jnp.max(jnp.where(observed.any(-1), steps, 0))


class _Parts(NamedTuple):
    """What the model of sequences is made of; no parameters."""

    table: Table
    encoder: _recurrent.Encoder
    decoder: _recurrent.Decoder
    family: Family
    guide_params: Callable[[Params, Array], Params]  # see `amortised_form`
    prior: Prior | None
    num_latents: int
    max_steps: int | None


def _init(parts: _Parts, key: Array) -> Params:
    key_encoder, key_decoder, key_guide, key_prior = jax.random.split(key, 4)
    features = jnp.zeros((1, parts.table.num_features))
    given = jnp.zeros((1, parts.table.num_covariates))
    z = jnp.zeros(parts.num_latents)
    params = {
        "encoder": _started(parts.encoder, key_encoder, features, jnp.int32(1)),
        "decoder": _started(parts.decoder, key_decoder, z, given),
        "likelihood": {
            group.name: group.likelihood.init((group.size,)) for group in parts.table.groups
        },
    }
    if parts.family.shared is not None:
        params["guide"] = parts.family.init(key_guide)
    if parts.prior is not None:
        params["prior"] = parts.prior.init(key_prior)
    return params


def _started(module: nn.Module, key: Array, *inputs: Array) -> Params:
    return jax.jit(module.init)(key, *inputs)["params"]


def _guide(parts: _Parts, params: Params, x: Row) -> Any:
    """q(z | what is observed of x)."""
    _checked(parts, x)
    observed = x["observed"]
    features = jax.vmap(parts.table.features)(x, observed)
    own = {"params": params["encoder"]}
    row: Any = parts.encoder.apply(own, features, length_of(observed))
    return parts.family.guide(parts.guide_params(params.get("guide"), row))


def _prior(parts: _Parts, params: Params, x: Row) -> Any:
    if parts.prior is None:
        return standard_normal(parts.num_latents)
    return parts.prior.make(params["prior"], x, lambda x: _guide(parts, params, x))


def _decode(parts: _Parts, params: Params, x: Row | None, z: Array) -> SequenceDistribution:
    """p(x | z) over the steps of x, or over `max_steps` where there is no x."""
    if x is not None:
        _checked(parts, x)
    elif parts.max_steps is None:
        raise ValueError(f"this {NAME} needs an example, or max_steps, to know how many steps.")
    context = parts.table.context(x, NAME)
    num_steps = parts.max_steps if x is None else x["values"].shape[0]
    given = context.get("covariates", jnp.zeros((num_steps, 0), z.dtype))
    outputs: Any = parts.decoder.apply({"params": params["decoder"]}, z, given)
    return SequenceDistribution(params["likelihood"], outputs, context, parts.table)


def _checked(parts: _Parts, x: Row) -> None:
    """Raises ValueError where x is not one example, of any number of steps."""
    shape = jnp.shape(x["values"]) if "values" in x else ()
    steps = shape[:1] if len(shape) == 2 else (0,)
    parts.table.checked(x, steps, NAME)


def _require_sizes(
    num_latents: int, width: int, decoder_width: int, num_covariates: int, max_steps: int | None
) -> None:
    sizes = (num_latents, width, decoder_width, 1 if max_steps is None else max_steps)
    if min(sizes) < 1 or num_covariates < 0:
        raise ValueError(
            f"{NAME} expects num_latents, widths and max_steps of at least 1 and num_covariates of "
            f"at least 0; got {num_latents}, {width}, {decoder_width}, {max_steps} and "
            f"{num_covariates}."
        )
