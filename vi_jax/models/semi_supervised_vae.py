"""The semi-supervised VAE: images of which some have a label."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from vi_jax.distributions import OneHotCategorical, Program
from vi_jax.models import likelihoods, networks
from vi_jax.models._emission import check_shape, emission
from vi_jax.models._kl import finest_kl
from vi_jax.models._layers import as_float, diagonal, standard_normal
from vi_jax.models.conditional_vae import WithContext
from vi_jax.models.likelihoods import Likelihood
from vi_jax.types import Array, Densities, Model, Params, Terms

CERTAIN = (
    40.0  # logit of a class that is known: e^-40 is 0 beside 1 in float32, and log of it is not
)


def semi_supervised_vae(
    x_shape: Sequence[int],
    num_classes: int,
    *,
    num_latents: int,
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
    """M2 of Kingma et al. (2014): y uniform over the classes, z ~ N(0, I), x | y, z; the guide is
    q(y | x) q(z | x, y).

    An example is {"image": [*x_shape], "label": whole number, "has_label": bool}; the label counts
    where has_label is True. Latents are {"y": one-hot [C], "z": [D]}. The bound of a labelled row
    is that of log p(x, y) (eq. 6), and otherwise that of log p(x), with y summed out exactly (eq.
    7). A labelled row adds the penalty

        alpha N / (n R) (-log q(y | x)),

    so that the sum over the training set has eq. 9's alpha N times the mean of -log q(y | x) over
    the n labelled rows. Labelled rows may stand R times among the training rows, so that batches
    have enough of them: their bounds then count 1 / R each in the terms.

    Args:
      x_shape: of one image.
      num_classes: C.
      num_latents: D.
      hidden: widths from x and y towards z.
      classifier_hidden: widths of q(y | x).
      activation: between layers.
      likelihood: of the image; Bernoulli if not given.
      output_bias: where the decoder's last bias starts, see `networks.mlp_decoder`.
      alpha: weight of the classifier's loss.
      num_data: training rows, copies among them.
      num_labels: n.
      label_copies: R.

    Returns:
      A Model of parameters {"classifier", "encoder", "decoder", "likelihood"}, its terms its own.

    Raises:
      ValueError: a size is not positive, or the likelihood updates parameters of its own.
    """
    x_shape = tuple(x_shape)
    _require_positive(num_classes, num_latents, num_data, num_labels, label_copies)
    likelihood = likelihoods.bernoulli() if likelihood is None else likelihood
    require_no_update("semi_supervised_vae", likelihood)
    recogniser = _recogniser(
        x_shape, num_classes, num_latents, hidden, classifier_hidden, activation
    )
    mirror = tuple(hidden)[::-1]
    num_inputs = num_latents + num_classes
    decoder = networks.mlp_decoder(
        x_shape, likelihood.num_outputs, num_inputs, mirror, activation, output_bias
    )
    pixels = emission(x_shape, decoder, likelihood)
    prior = _uniform_and_normal(num_classes, num_latents)
    weight = alpha * (num_data - num_labels * (label_copies - 1)) / (num_labels * label_copies)

    def init(key: Array) -> Params:
        key_guide, key_pixels = jax.random.split(key)
        return {**recogniser.init(key_guide), **pixels.init(key_pixels)}

    def decode(params: Params, x: Any, z: Any) -> WithContext:
        label = jnp.argmax(z["y"]).astype(jnp.asarray(x["label"]).dtype)
        context = {"label": label, "has_label": x["has_label"]}
        return WithContext(pixels.decode(params, _seen_by_decoder(z)), context, "image")

    def log_lik(params: Params, x: Any, z: Any) -> Array:
        return pixels.log_lik(params, x["image"], _seen_by_decoder(z))

    def penalty(params: Params, x: Any) -> Array:
        log_q = jax.nn.log_softmax(recogniser.class_logits(params, x))
        missed = -log_q @ jax.nn.one_hot(x["label"], num_classes)
        return jnp.where(x["has_label"], weight * missed, 0.0)

    def terms(key: Array, params: Params, x: Any) -> Terms:
        q = recogniser.guide(params, x)
        of_rows = jnp.where(x["has_label"], 1.0 / label_copies, 1.0)
        found = _summed_out(key, q, prior, lambda z: log_lik(params, x, z))
        weighed = jax.tree.map(lambda leaf: of_rows * leaf, found)
        return weighed._replace(penalty=penalty(params, x))

    def generate(key: Array, params: Params, x: Any) -> WithContext:
        return decode(params, x, prior.sample(key))

    densities = Densities(recogniser.guide, lambda params, x: prior, decode, log_lik, penalty)
    return Model(init, terms, generate, densities)


def _summed_out(key: Array, q: Program, prior: Program, log_lik: Callable[[Any], Array]) -> Terms:
    """The terms with y summed out by q(y | x), which of a labelled row is its label's (eq. 7)."""
    log_q = jax.nn.log_softmax(q.context["logits"])
    num_classes = log_q.shape[0]

    def of_class(key: Array, y: Array) -> tuple[Array, Array]:
        z = {"y": y, **q.condition({"y": y}).sample(key)}
        return log_lik(z), finest_kl(q.at(z)["z"], prior.at(z)["z"])

    each, kl_z = jax.vmap(of_class)(jax.random.split(key, num_classes), jnp.eye(num_classes))
    share = jnp.exp(log_q)  # [C]; of log p(x | y, z) [C] and of KLs [C, D]
    kls = {"y": share @ (log_q + math.log(num_classes)), "z": share @ kl_z}
    return Terms(share @ each, kls)


class _Recogniser(NamedTuple):
    """q(y | x) q(z | x, y)."""

    init: Callable[[Array], Params]
    class_logits: Callable[[Params, Any], Array]  # of q(y | x), whatever the label, [C]
    guide: Callable[[Params, Any], Program]  # y is the label where there is one


def _recogniser(
    x_shape: tuple[int, ...],
    num_classes: int,
    num_latents: int,
    hidden: Sequence[int],
    classifier_hidden: Sequence[int],
    activation: Callable[[Array], Array],
) -> _Recogniser:
    classifier = networks.mlp_encoder(x_shape, num_classes, classifier_hidden, activation)
    num_inputs = math.prod(x_shape) + num_classes
    encoder = networks.mlp_encoder((num_inputs,), 2 * num_latents, hidden, activation)

    def init(key: Array) -> Params:
        key_classifier, key_encoder = jax.random.split(key)
        return {"classifier": classifier.init(key_classifier), "encoder": encoder.init(key_encoder)}

    def class_logits(params: Params, x: Any) -> Array:
        if "has_label" not in x:
            raise ValueError(
                "semi_supervised_vae expects examples of image, label and has_label; got "
                f"{sorted(x)}. In a config, set data.with_labels=True and data.num_labels."
            )
        check_shape(x["image"], x_shape)
        return classifier.apply(params["classifier"], as_float(x["image"]))

    def recognise(params: Params, seen: Any, site: Callable[..., Any]) -> None:
        y = site("y", OneHotCategorical(seen["logits"]))
        row = jnp.concatenate([seen["image"], y])
        site("z", diagonal(encoder.apply(params, row)))

    def guide(params: Params, x: Any) -> Program:
        free = class_logits(params, x)
        known = CERTAIN * jax.nn.one_hot(x["label"], num_classes)
        logits = jnp.where(x["has_label"], known, free)
        seen = {"logits": logits, "image": as_float(x["image"]).ravel()}
        return Program(params["encoder"], seen, recognise)

    return _Recogniser(init, class_logits, guide)


def _uniform_and_normal(num_classes: int, num_latents: int) -> Program:
    """y uniform over one-hot vectors, z ~ N(0, I)."""

    def function(params: Params, context: None, site: Callable[..., Any]) -> None:
        site("y", OneHotCategorical(jnp.zeros(num_classes)), given=())
        site("z", standard_normal(num_latents), given=())

    return Program(None, None, function)


def _seen_by_decoder(z: Mapping[str, Array]) -> Array:
    return jnp.concatenate([z["z"], z["y"]])


def _require_positive(num_classes: int, *numbers: int) -> None:
    if min(numbers) < 1 or num_classes < 2:
        raise ValueError(
            "semi_supervised_vae expects positive numbers and two classes or more; got "
            f"num_classes {num_classes}, and num_latents, num_data, num_labels and label_copies "
            f"{numbers}."
        )


def require_no_update(model: str, likelihood: Likelihood) -> None:
    """Raises ValueError where the likelihood has parameters that no gradient moves."""
    if likelihood.update is not None:
        raise ValueError(
            f"{model} expects a likelihood without an update of its own; take gaussian_learned for "
            "gaussian_optimal."
        )
