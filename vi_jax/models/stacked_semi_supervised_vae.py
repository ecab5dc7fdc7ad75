"""M1+M2: a semi-supervised VAE over the latents of a VAE of the images."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vi_jax.distributions import Program
from vi_jax.models import likelihoods
from vi_jax.models._kl import finest_kl
from vi_jax.models._layers import standard_normal
from vi_jax.models.architectures import Architecture
from vi_jax.models.conditional_vae import WithContext
from vi_jax.models.likelihoods import Likelihood
from vi_jax.models.semi_supervised_vae import require_no_update, semi_supervised_vae
from vi_jax.models.vae import vae
from vi_jax.types import Array, Densities, Drawn, Model, Params, Terms, freeze

_UPPER = {"y": "y", "z": "z2"}  # the sites of M2, and their names here


def stacked_semi_supervised_vae(
    x_shape: Sequence[int],
    num_classes: int,
    *,
    num_features: int = 50,
    num_latents: int = 50,
    network: Architecture | None = None,
    features_hidden: Sequence[int] = (500, 500),
    hidden: Sequence[int] = (500,),
    classifier_hidden: Sequence[int] = (500,),
    activation: Callable[[Array], Array] = nn.softplus,
    likelihood: Likelihood | None = None,
    output_bias: Any = None,
    alpha: float = 0.1,
    num_data: int = 1,
    num_labels: int = 1,
    label_copies: int = 1,
) -> Model:
    """M1+M2 of Kingma et al. (2014, sec. 2.3): p(y) p(z2) p(z1 | y, z2) p(x | z1), the guide
    q(z1 | x) q(y | z1) q(z2 | z1, y).

    The paper trains M1, a VAE of x under z1 ~ N(0, I), to its end, and then M2 on samples of
    q(z1 | x). Here both train at the same time, each by its own bound: M1 does not see M2, and M2
    sees the samples of M1 as data, drawn afresh at each step. The terms are those of the whole
    model, log p(x) among what they bound: as E_q[log q(z1 | x) - log N(z1)] is in closed form,

        KL of z1 = KL(q(z1 | x) || N(0, I)) + log N(z1) - log p(z1 | y, z2),

    where no gradient goes through the last two into z1. Examples, latents, labelled rows and
    their copies are as for `semi_supervised_vae`; the sites are z1, y and z2.

    Args:
      x_shape: of one image.
      num_classes: C.
      num_features: of z1.
      num_latents: of z2.
      network: encoder and decoder of M1; an MLP of `features_hidden` if not given.
      features_hidden: widths of that, from x towards z1.
      hidden: widths of M2, from z1 and y towards z2.
      classifier_hidden: widths of q(y | z1).
      activation: between layers.
      likelihood: of the image; Bernoulli if not given.
      output_bias: where the decoder's last bias starts, see `networks.mlp_decoder`.
      alpha, num_data, num_labels, label_copies: see `semi_supervised_vae`.

    Returns:
      A Model of parameters {"m1", "m2"}, its terms its own.

    Raises:
      ValueError: a size is not positive, or the likelihood updates parameters of its own.
    """
    likelihood = likelihoods.bernoulli() if likelihood is None else likelihood
    require_no_update("stacked_semi_supervised_vae", likelihood)
    m1 = vae(
        x_shape,
        num_latents=num_features,
        network=network,
        hidden=features_hidden,
        activation=activation,
        likelihood=likelihood,
        output_bias=output_bias,
    )
    m2 = semi_supervised_vae(
        (num_features,),
        num_classes,
        num_latents=num_latents,
        hidden=hidden,
        classifier_hidden=classifier_hidden,
        activation=activation,
        likelihood=likelihoods.gaussian_heteroscedastic(),
        alpha=alpha,
        num_data=num_data,
        num_labels=num_labels,
        label_copies=label_copies,
    )
    return _stacked(m1, m2, num_features, label_copies)


def _stacked(m1: Model, m2: Model, num_features: int, label_copies: int) -> Model:
    lower: Any = m1.densities
    upper: Any = m2.densities

    def init(key: Array) -> Params:
        key_1, key_2 = jax.random.split(key)
        return {"m1": m1.init(key_1), "m2": m2.init(key_2)}

    def recognise(params: Params, x: Any, site: Callable[..., Any]) -> None:
        z1 = site("z1", lower.guide(params["m1"], x["image"]))
        q = upper.guide(params["m2"], _with_features(x, z1))
        q.function(q.params, q.context, _renamed(site, {}))

    def generate_latents(params: Params, x: Any, site: Callable[..., Any]) -> None:
        z: dict[str, Array] = {}
        p = upper.prior(params["m2"], x)
        p.function(p.params, p.context, _renamed(site, z))
        site("z1", upper.decode(params["m2"], x, z).base.to_event(1))

    def guide(params: Params, x: Any) -> Program:
        return Program(params, x, recognise)

    def prior(params: Params, x: Any) -> Program:
        return Program(params, x, generate_latents)

    def decode(params: Params, x: Any, z: Mapping[str, Array]) -> WithContext:
        label = jnp.argmax(z["y"]).astype(jnp.asarray(x["label"]).dtype)
        context = {"label": label, "has_label": x["has_label"]}
        pixels = lower.decode(params["m1"], x["image"], z["z1"])
        return WithContext(pixels, context, "image")

    def log_lik(params: Params, x: Any, z: Mapping[str, Array]) -> Array:
        return lower.log_lik(params["m1"], x["image"], z["z1"])

    def penalty(params: Params, x: Any) -> Array:
        z1 = freeze(lower.guide(params["m1"], x["image"])).mean
        return upper.penalty(params["m2"], _with_features(x, z1))

    def terms(key: Array, params: Params, x: Any) -> Terms:
        key_1, key_2 = jax.random.split(key)
        q = lower.guide(params["m1"], x["image"])
        z1 = q.sample(key_1)
        of_pixels = lower.log_lik(params["m1"], x["image"], z1)
        # M2's bound of log p(z1), with z1 as data
        data = freeze(z1)
        above = m2.terms(key_2, params["m2"], _with_features(x, data))
        plain = standard_normal(num_features)
        of_rows = jnp.where(x["has_label"], 1.0 / label_copies, 1.0)
        kl = of_rows * (finest_kl(q, plain).sum() + plain.log_prob(data)) - above.log_lik
        kls = {"z1": Drawn(kl), **{_UPPER[name]: leaf for name, leaf in above.kl.items()}}
        return Terms(of_rows * of_pixels, kls, above.penalty)

    def generate(key: Array, params: Params, x: Any) -> WithContext:
        return decode(params, x, prior(params, x).sample(key))

    densities = Densities(guide, prior, decode, log_lik, penalty)
    return Model(init, terms, generate, densities)


def _with_features(x: Mapping[str, Any], z1: Array) -> dict[str, Any]:
    """The example that M2 sees."""
    return {**x, "image": z1}


def _renamed(site: Callable[..., Any], found: dict[str, Any]) -> Callable[..., Any]:
    """M2's sites under their names here; `found` is filled with their values under M2's names."""

    def of_upper(name: str, p: Any, given: Sequence[str] | None = None) -> Any:
        found[name] = site(_UPPER[name], p, given)
        return found[name]

    return of_upper
