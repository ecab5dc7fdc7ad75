"""What neural topic models share: an encoder of bags of words, and the distribution of one."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from vi_jax.arguments import as_count
from vi_jax.models._kl import KL
from vi_jax.models.from_densities import from_densities
from vi_jax.models.networks import Network, mlp_encoder
from vi_jax.types import Array, Model, Params

_PER_PLACE = 16  # words of the vocabulary that cost as much as one that is looked up
_SOFTPLUS_ONE = 0.5413  # softplus of it is 1
_LEAST = 1e-9  # of a word's frequency, where the background begins


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("log_probs", "ids", "counts", "context"),
    meta_fields=(),
)
class Bag:
    """The words of one document: as many as it has, each from one distribution.

    `log_prob` is that of the tokens in their order, without the multinomial coefficient. A sample
    has at most as many distinct words as the document has places; what there is beyond is left out,
    the rarest first.
    """

    def __init__(self, log_probs: Array, ids: Array, counts: Array, context: Any = None) -> None:
        """log_probs [V], ids and counts [L] of the document whose length it has; `context`, further
        leaves by name, is copied into samples.
        """
        self.context = {} if context is None else context
        self.log_probs = log_probs
        self.ids = ids
        self.counts = counts

    def log_prob(self, value: Any) -> Array:
        """sum n log p, nats, of {"ids", "counts"}."""
        return jnp.sum(value["counts"] * self.log_probs[value["ids"]])

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Any:
        """Documents {"ids", "counts"}, each leaf [*sample_shape, L]."""
        total = jnp.sum(self.counts)
        probs = jnp.exp(self.log_probs)
        shape = (*sample_shape, len(probs))
        drawn = jax.random.multinomial(key, total, probs, shape=shape)
        counts, ids = jax.lax.top_k(drawn, len(self.counts))
        ids = jnp.where(counts > 0, ids, 0).astype(self.ids.dtype)
        context = {
            name: jnp.broadcast_to(leaf, (*sample_shape, *leaf.shape))
            for name, leaf in self.context.items()
        }
        return {"ids": ids, "counts": counts.astype(self.counts.dtype), **context}

    @property
    def mean(self) -> Array:
        """Expected counts of all words, [V]."""
        return jnp.sum(self.counts) * jnp.exp(self.log_probs)


class Parts(NamedTuple):
    """A decoder: all that two neural topic models differ in."""

    init: Callable[[Array], Params]  # key -> parameters
    log_probs: Callable[[Params, Array], Array]  # (parameters, z [K]) -> log p of all words, [V]
    # (parameters, z, ids [L]) -> log p of some words, [L]
    log_probs_at: Callable[[Params, Array, Array], Array]
    prior: Any  # p(z), a distribution over [K]


def encoder(num_words: int, num_outputs: int, hidden: int, num_covariates: int = 0) -> Network:
    """softplus(sum_w a_w words_w + log(1 + n) length) of a document of n tokens through one more
    layer, to [num_outputs]; a_w = log(1 + n_w) / (1 + sum_w log(1 + n_w)^2)^(1/2), so that long and
    short documents are of one scale. Parameters {"words" [V, H], "length" [H], "encoder"}, others
    beside them are left alone; with covariates x["covariates"] [C] also "covariates" [C, H], whose
    product with them is added before the softplus.
    """
    as_count(num_words, "num_words", what="V")
    as_count(hidden, "hidden")
    network = mlp_encoder((hidden,), num_outputs, (hidden,), nn.softplus)

    def init(key: Array) -> Params:
        key_words, key_encoder = jax.random.split(key)
        params = {
            "words": jax.random.normal(key_words, (num_words, hidden)),
            "length": jnp.zeros(hidden),
            "encoder": network.init(key_encoder),
        }
        if num_covariates:
            params["covariates"] = jnp.zeros((num_covariates, hidden))
        return params

    def apply(params: Params, x: Any) -> Array:
        words = params["words"]
        counts = x["counts"].astype(words.dtype)
        weights = jnp.log1p(counts)
        weights = weights / jnp.sqrt(1.0 + jnp.sum(weights**2))
        if _PER_PLACE * len(weights) > num_words:  # of a batch, one product of matrices
            bag = jnp.zeros(num_words, weights.dtype).at[x["ids"]].add(weights) @ words
        else:
            bag = weights @ words[x["ids"]]
        bag = bag + jnp.log1p(jnp.sum(counts)) * params["length"]
        if num_covariates:
            bag = bag + x["covariates"] @ params["covariates"]
        return network.apply(params["encoder"], jax.nn.softplus(bag))

    return Network(init, apply)


def make_model(
    parts: Parts,
    *,
    num_words: int,
    num_latents: int,
    hidden: int,
    kl: KL = "closed",
    num_covariates: int = 0,
) -> Model:
    """A Model of one document with a Gaussian guide, parameters of `encoder` and "decoder"; with
    covariates, the decoder's "deviations" [C, V] move its "background" by c' deviations.
    """
    as_count(num_latents, "num_latents", what="K")
    bag = encoder(num_words, 2 * num_latents, hidden, num_covariates)

    def decoder_of(params: Params, x: Any) -> Params:
        decoder = params["decoder"]
        if not num_covariates:
            return decoder
        moved = decoder["background"] + x["covariates"] @ decoder["deviations"]
        return {**decoder, "background": moved}

    def init(key: Array) -> Params:
        key_encoder, key_decoder = jax.random.split(key)
        return {**bag.init(key_encoder), "decoder": parts.init(key_decoder)}

    def guide(params: Params, x: Any) -> Any:
        loc, raw = jnp.split(bag.apply(params, x), 2)
        # no exponential: a document unlike the others would have a scale that ends the training
        return dist.Normal(loc, jax.nn.softplus(raw + _SOFTPLUS_ONE)).to_event(1)

    def prior(params: Params, x: Any) -> Any:
        del params, x
        return parts.prior

    def decode(params: Params, x: Any, z: Array) -> Bag:
        context = {"covariates": x["covariates"]} if num_covariates else None
        log_probs = parts.log_probs(decoder_of(params, x), z)
        return Bag(log_probs, x["ids"], x["counts"], context)

    def log_lik(params: Params, x: Any, z: Array) -> Array:
        return jnp.sum(x["counts"] * parts.log_probs_at(decoder_of(params, x), z, x["ids"]))

    return from_densities(init, guide, prior, decode, log_lik, kl=kl)


def standard_normal(num_latents: int) -> Any:
    """N(0, I) over [K]."""
    return dist.Normal(jnp.zeros(num_latents), 1.0).to_event(1)


def start_of(background: Any, num_words: int) -> Array:
    """Log frequencies [V] where the background begins; even ones where none are given.

    Raises:
      ValueError: another number of words.
    """
    if background is None:
        return jnp.zeros(num_words)
    found = jnp.asarray(background, jnp.float32)
    if found.shape != (num_words,):
        raise ValueError(
            f"background needs a frequency for each of {num_words:,} words; got shape "
            f"{found.shape}."
        )
    return jnp.log(jnp.maximum(found / jnp.sum(found), _LEAST))


def all_words(
    log_probs_at: Callable[[Params, Array, Array], Array], num_words: int
) -> Callable[[Params, Array], Array]:
    """log p of all words by that of some."""
    return lambda params, z: log_probs_at(params, z, jnp.arange(num_words))


def topics(model: Model, params: Params, num_latents: int, *, at: float = 1e4) -> Array:
    """The distribution over words of each topic alone, [K, V]: what is decoded where a topic has
    all of a document. Of models that have `shares`.
    """
    decoder = params["decoder"]
    if "mix" in decoder:  # no z has a topic alone
        return jax.nn.softmax(decoder["topics"] + decoder["background"])
    x = {"ids": jnp.zeros(1, jnp.int32), "counts": jnp.ones(1)}
    if "deviations" in decoder:  # of a document whose covariates are all 0
        x["covariates"] = jnp.zeros(len(decoder["deviations"]))
    corners = jax.nn.log_softmax(at * jnp.eye(num_latents))
    if model.densities is None:
        raise ValueError("topics are read from the densities of a model; this one has none.")
    decode = model.densities.decode
    return jax.vmap(lambda z: jnp.exp(decode(params, x, z).log_probs))(corners)


def shares(params: Params, z: Array) -> Array:
    """theta [K] of latents z [K]: softmax(z), or softmax(W z) where the decoder has a mix W; a
    plain `nvdm` has none.
    """
    decoder = params["decoder"]
    mixed = z @ decoder["mix"] if "mix" in decoder else z
    return jax.nn.softmax(mixed)
