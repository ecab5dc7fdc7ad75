"""The VAE of a table: columns of many kinds in one row, missing values, exposure and covariates.

rows = {"values": values, "observed": observed}  # [N, D] each
columns = [Column("gaussian"), Column("poisson"), Column("categorical", num_levels=3)]
model = table_vae(with_starts(columns, **rows), num_latents=2, hide=0.2)
params, _ = vi.train(key, model, vi.losses.negative_elbo(model), optax.adam(1e-2), rows, ...)
filled = vi.diagnostics.imputation.impute(key, model, params, rows)
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp

from vi_jax import families
from vi_jax.attributes import declare
from vi_jax.models import _table_guide, architectures
from vi_jax.models._columns import Column, require_columns
from vi_jax.models._kl import KL, kls_by_site
from vi_jax.models._layers import standard_normal
from vi_jax.models._starts import with_starts
from vi_jax.models._table import Table
from vi_jax.models._table_distribution import Row, TableDistribution
from vi_jax.models.architectures import Architecture
from vi_jax.models.from_densities import from_densities
from vi_jax.models.networks import Network
from vi_jax.models.vae import amortised_form
from vi_jax.types import Array, Family, Model, Params, Prior, Terms, freeze

__all__ = ["Column", "TableDistribution", "hide_entries", "table_vae", "with_starts"]

Guide = Literal["encoder", "linearised", "linearised_encoder"]
GENERATIVE = ("decoder", "likelihood", "prior")  # parameters of p(x, z)


def table_vae(
    columns: Sequence[Column],
    *,
    num_latents: int,
    network: Architecture | None = None,
    hidden: Sequence[int] = (128,),
    decoder_hidden: Sequence[int] | None = None,
    activation: Callable[[Array], Array] = nn.tanh,
    family: Callable[[int], Family] = families.mean_field,
    guide: Guide = "encoder",
    prior: Prior | None = None,
    kl: KL = "closed",
    num_covariates: int = 0,
    has_exposure: bool = False,
    heteroscedastic: bool = False,
    min_scale: float = 0.01,
    hide: float = 0.0,
    hide_trains_decoder: bool = True,
    dtype: Any = None,
) -> Model:
    """p(z) prod_j p(x_j | z) over the observed columns j of a row, each of its own kind, and
    q(z | what is observed) (HI-VAE: Nazabal et al. 2020, eq. 3 and 6; MIWAE: Mattei & Frellsen
    2019, sec. 2).

    An example is {"values": [D], "observed": bool [D]}, with "exposure": [] where counts have one
    and "covariates": [C] where the model is conditional. Values under the mask change nothing, to
    the last bit. Where "seen": bool [D] is given, the encoder sees only these of the observed
    entries (`hide_entries`). `log_lik` is the sum over observed columns, in the model's units: its
    expectation less the KL is a bound of the log of the marginal density of what is observed, which
    is right for maximum likelihood where values are missing at random (Rubin 1976).

    The encoder sees each column standardised (`log(x) / scale`, `log1p(count / exposure)`, one-hot
    classes), 0 where not observed, beside the mask, log exposure and covariates. The decoder sees z
    and the covariates; an exposure e multiplies the rate of counts: log rate = output + log e.
    A linear decoder (`decoder_hidden=()`) of Gaussian columns is factor analysis.

    Args:
      columns: what each column is; see `Column`, and `with_starts` for where they start.
      num_latents: D of z.
      network: encoder and decoder; `architectures.mlp` of the next three if not given.
      hidden: widths of the encoder, from x towards z.
      decoder_hidden: widths of the decoder, from z towards x; those of the encoder in reverse if
        not given.
      activation: between layers.
      family: num_latents -> Family; mean-field Gaussian if not given.
      guide: "encoder", amortised by the encoder alone; "linearised", the Gaussian posterior that
        the decoder linearised at z = 0 and the likelihoods taken for normal give, which is exact
        for a linear decoder and Gaussian columns, whatever is missing (no parameters of its own);
        or "linearised_encoder", that posterior moved by the encoder in its own coordinates. The
        last two have a full covariance and take no family; N(0, I) is the prior they assume.
      prior, kl: see `amortised`; N(0, I) if not given, whatever the covariates.
      num_covariates: C.
      has_exposure: whether examples have "exposure", above 0.
      heteroscedastic: the decoder puts out the scales of real columns; else they are trained, one
        for each column.
      min_scale: floor of the scales of real columns: of the column's SD, if `Column.scale` is
        that. It bounds the density of a value that is repeated: at most 1 / (sqrt(2 pi) min_scale).
      hide: share of the observed entries that are hidden from the encoder in training
        (`train_terms`), at random, afresh in each step; the likelihood still has all of them.
        Since q may be anything, the bound remains one (a denoising criterion: Im et al. 2017, sec.
        3; as dropout of the input in MIWAE's successors). It keeps an encoder of a small table from
        learning its rows by heart, and teaches it other patterns of missing values. The bound of a
        guide that knows less is looser, and has scales learned too wide where few columns tell of
        each latent (three columns of one factor, 30 % missing, hide=0.2: 0.42 for a true 0.30).
      hide_trains_decoder: False trains p(x, z) by the bound of the whole view, and the encoder by
        both, without that bias, in twice the time.
      dtype: of the activations, see `networks`.

    Returns:
      A Model of parameters {"encoder", "decoder", "likelihood"}, the last by group of columns, with
      "guide" and "prior" as in `amortised`, and without "encoder" where the guide has none.
      `densities.decode` is a `TableDistribution`.

    Raises:
      ValueError: a size, a share, a column or the guide is not what it has to be.
    """
    columns = require_columns(columns)
    _require_numbers(num_latents, num_covariates, min_scale, hide)
    _require_guide(guide, family)
    table = Table(columns, num_covariates, has_exposure, min_scale, heteroscedastic)
    towards_x = tuple(hidden)[::-1] if decoder_hidden is None else tuple(decoder_hidden)
    encoders = network or architectures.mlp(hidden, activation)
    decoders = network or architectures.mlp(towards_x[::-1], activation)
    chosen = family(num_latents)
    num_encoder_outputs, guide_params = amortised_form(chosen)
    is_moved = guide == "linearised_encoder"
    num_inputs = table.num_features + (num_latents if is_moved else 0)
    parts = _Parts(
        table,
        guide,
        encoders.encoder((num_inputs,), num_encoder_outputs, dtype),
        decoders.decoder(
            (table.num_outputs,), 1, num_latents + num_covariates, table.bias(), dtype
        ),
        chosen,
        guide_params,
        prior,
        num_latents,
    )
    model = from_densities(
        partial(_init, parts),
        partial(_guide, parts),
        partial(_prior, parts),
        partial(_decode, parts),
        lambda params, x, z: _decode(parts, params, x, z).log_prob(table.checked(x)),
        kl=kl,
    )
    return (
        model._replace(train_terms=_hiding(parts, model, kl, hide, hide_trains_decoder))
        if hide
        else model
    )


def hide_entries(key: Array, x: Row, share: float) -> dict[str, Array]:
    """The same examples with the leaf "seen", which leaves out a share of the observed entries at
    random: what the encoder of `table_vae` does not see, and its likelihood does.

    It makes of any bound the one of a guide that knows less. `negative_bound` with many samples
    (MIWAE) has it so, applied to a batch before the loss; `table_vae(hide=...)` is for the ELBO.

    Args:
      key: one typed PRNG key.
      x: one example, or a batch of them.
      share: between 0 and 1.
    """
    kept = jax.random.bernoulli(key, 1.0 - share, jnp.shape(x["observed"]))
    return {**x, "seen": x["observed"] & kept}


class _Parts(NamedTuple):
    """What the model of a table is made of; no parameters."""

    table: Table
    guide: Guide
    encoder: Network
    decoder: Network
    family: Family
    guide_params: Callable[[Params, Array], Params]  # see `amortised_form`
    prior: Prior | None
    num_latents: int


def _init(parts: _Parts, key: Array) -> Params:
    key_encoder, key_decoder, key_guide, key_prior = jax.random.split(key, 4)
    params = {
        "decoder": parts.decoder.init(key_decoder),
        "likelihood": {
            group.name: group.likelihood.init((group.size,)) for group in parts.table.groups
        },
    }
    if parts.guide != "linearised":
        params["encoder"] = parts.encoder.init(key_encoder)
    if parts.family.shared is not None:
        params["guide"] = parts.family.init(key_guide)
    if parts.prior is not None:
        params["prior"] = parts.prior.init(key_prior)
    return params


def _guide(parts: _Parts, params: Params, x: Row) -> Any:
    """q(z | the entries of x that are seen)."""
    parts.table.checked(x)
    seen = x["observed"] & x.get("seen", True)
    if parts.guide == "encoder":
        row = parts.encoder.apply(params["encoder"], parts.table.features(x, seen))
        return parts.family.guide(parts.guide_params(params.get("guide"), row))
    outputs_of = partial(_outputs, parts, params, parts.table.context(x))
    origin = jnp.zeros(parts.num_latents)
    outputs = outputs_of(origin)
    said = _table_guide.quadratic(parts.table, params["likelihood"], outputs, x, seen)
    loc, scale_tril = _table_guide.posterior(said, jax.jacfwd(outputs_of)(origin))
    if parts.guide == "linearised":
        return _table_guide.gaussian(loc, scale_tril)
    # what is far from the rest moves a linear posterior far: the encoder sees it in proportion
    features = jnp.arcsinh(parts.table.features(x, seen))
    row = parts.encoder.apply(params["encoder"], jnp.concatenate([features, loc]))
    return _table_guide.moved(loc, scale_tril, row)


def _prior(parts: _Parts, params: Params, x: Row) -> Any:
    if parts.prior is None:
        return standard_normal(parts.num_latents)
    return parts.prior.make(params["prior"], x, lambda x: _guide(parts, params, x))


def _decode(parts: _Parts, params: Params, x: Row | None, z: Array) -> TableDistribution:
    context = parts.table.context(x)
    outputs = _outputs(parts, params, context, z)
    return parts.table.distribution(params["likelihood"], outputs, context)


def _outputs(parts: _Parts, params: Params, context: dict[str, Array], z: Array) -> Array:
    """The decoder's, [M]."""
    seen = z
    if "covariates" in context:
        seen = jnp.concatenate([z, context["covariates"].astype(z.dtype)])
    return parts.decoder.apply(params["decoder"], seen)[:, 0]


def _hiding(
    parts: _Parts, model: Model, kl: KL, hide: float, trains_decoder: bool
) -> Callable[[Array, Params, Row], Terms]:
    """The terms under a guide from which a share of the observed entries is hidden at random; or
    those of the whole view, with minus the hidden bound as a penalty on the encoder alone.
    """
    densities: Any = model.densities

    @declare(through_draws=True)
    def hidden_terms(key: Array, params: Params, x: Row) -> Terms:
        key_hide, key_z = jax.random.split(key)
        q = _guide(parts, params, hide_entries(key_hide, parts.table.checked(x), hide))
        z = q.sample(key_z)
        kls = kls_by_site(q, densities.prior(params, x), z, kl)
        return Terms(densities.log_lik(params, x, z), kls)

    @declare(through_draws=True)
    def whole_terms(key: Array, params: Params, x: Row) -> Terms:
        key_whole, key_hidden = jax.random.split(key)
        generative = {name: freeze(params[name]) for name in GENERATIVE if name in params}
        hidden = hidden_terms(key_hidden, {**params, **generative}, x)
        kl_of_hidden = sum(jnp.sum(leaf) for leaf in jax.tree.leaves(hidden.kl))
        whole = model.terms(key_whole, params, x)
        return whole._replace(penalty=kl_of_hidden - hidden.log_lik)

    return hidden_terms if trains_decoder else whole_terms


def _require_guide(guide: str, family: Any) -> None:
    if guide not in get_args(Guide):
        raise ValueError(f"table_vae has the guides {', '.join(get_args(Guide))}; got {guide!r}.")
    if guide != "encoder" and family is not families.mean_field:
        raise ValueError(
            f"the guide {guide!r} is a Gaussian of full covariance and takes no family; leave "
            "family at mean_field, or use the guide 'encoder'."
        )


def _require_numbers(num_latents: int, num_covariates: int, min_scale: float, hide: float) -> None:
    is_wrong = num_latents < 1 or num_covariates < 0
    if is_wrong or not 0.0 < min_scale < 1.0 or not 0.0 <= hide < 1.0:
        raise ValueError(
            "table_vae expects num_latents of at least 1, num_covariates of at least 0, min_scale "
            f"between 0 and 1 and hide from 0 to below 1; got {num_latents}, {num_covariates}, "
            f"{min_scale} and {hide}."
        )
