"""The VQ-VAE: latents that are codes of a codebook, the nearest to what the encoder puts out."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vi_jax.distributions import OneHotCategorical
from vi_jax.models import architectures, likelihoods
from vi_jax.models._code_prior import CodePrior, init_code_prior
from vi_jax.models._emission import Emission, check_shape, emission
from vi_jax.models._layers import as_float
from vi_jax.models.architectures import Architecture
from vi_jax.models.likelihoods import Likelihood
from vi_jax.models.networks import Network
from vi_jax.types import Array, Densities, Model, Params, Terms, freeze

_START = 0.1  # standard deviation of the codes at the start


def vq_vae(
    x_shape: Sequence[int],
    *,
    num_positions: int = 16,
    num_codes: int = 32,
    code_size: int = 8,
    network: Architecture | None = None,
    likelihood: Likelihood | None = None,
    commitment: float = 0.25,
    decay: float = 0.99,
    reset_after: int = 100,
    temperature: float = 0.1,
    prior_width: int = 16,
    output_bias: Any = None,
    dtype: Any = None,
) -> Model:
    """M latents, each the nearest of K codes e_k to a vector of the encoder (van den Oord et al.
    2017), with a codebook by moving averages (their appendix A.1) and a trained prior over codes.

        ELBO = log p(x | e_k1 .. e_kM) + log p(k1 .. kM),    k_m = argmin_k |r_m - e_k|^2

    It is a bound of log p(x), that of a guide which is sure of its codes. Its gradient is not the
    loss's: the decoder's goes to r straight through, and `penalty` is the commitment,
    beta |r - e_k|^2. The prior is trained by the bound as it stands, which gives the encoder no
    gradient. `update` moves the codebook, before the gradient of a step is taken:

        n_k <- decay n_k + (1 - decay) count_k,  m_k likewise by sums of r,  e_k = m_k / n_k,

    a step of k-means at decay 0. A code that no vector has chosen for `reset_after` steps becomes
    a sample of the vectors as the codebook has them: another code by its share, with noise of its
    cluster's variance.

    **log p(x) by importance sampling** has a softened guide, q(k_m) ~ exp(-|r_m - e_k|^2 / tau),
    in place of the sure one, under which all importance weights are one: tau is `temperature` times
    the moving average of |r - e_k|^2 itself. So `densities.guide` is not the guide of `terms`; no
    bound of log-weights trains this model.

    Args:
      x_shape: of one example.
      num_positions: M.
      num_codes: K.
      code_size: numbers of a code.
      network: encoder to M code_size numbers, and decoder from them; `architectures.mlp()` if not
        given.
      likelihood: of x given the codes; Bernoulli if not given.
      commitment: beta.
      decay: of the moving averages.
      reset_after: steps.
      temperature: of the softened guide.
      prior_width: hidden units of the prior for each position; 0: a uniform prior.
      output_bias: where the decoder's last bias starts, see `networks.mlp_decoder`.
      dtype: of the activations, see `vae`.

    Returns:
      A Model of parameters {"encoder", "codebook", "decoder", "likelihood"}, with "prior" unless
      it is uniform. z are one-hot codes [M, K].

    Raises:
      ValueError: a size or a number cannot be.
    """
    _require(num_positions, num_codes, code_size, prior_width, decay, reset_after, temperature)
    shape = tuple(x_shape)
    pair = network or architectures.mlp()
    of_x = likelihoods.bernoulli() if likelihood is None else likelihood
    num_outputs = num_positions * code_size
    decoder = pair.decoder(shape, of_x.num_outputs, num_outputs, output_bias, dtype)
    parts = _Parts(
        x_shape=shape,
        sizes=(num_positions, num_codes, code_size),
        encoder=pair.encoder(shape, num_outputs, dtype),
        input_scale=of_x.scale,
        pixels=emission(shape, decoder, of_x),
        prior_width=prior_width,
    )

    def terms(key: Array, params: Params, x: Array) -> Terms:
        del key  # the guide is sure
        return _terms(parts, params, x, commitment)

    def guide(params: Params, x: Array) -> Any:
        codebook = params["codebook"]
        squares = squared_distances(parts.vectors(params, x), codebook["codes"])
        tau = temperature * codebook["distance"]
        return OneHotCategorical(-squares / tau).to_event(1)

    def generate(key: Array, params: Params, x: Array) -> Any:
        return parts.decode(params, x, parts.prior(params, x).sample(key))

    def update(key: Array, params: Params, stats: Any) -> Params:
        moved = move_codebook(
            key, params["codebook"], stats["codebook"], decay=decay, reset_after=reset_after
        )
        params = {**params, "codebook": moved}
        if parts.pixels.update is None:
            return params
        return parts.pixels.update(jax.random.fold_in(key, 1), params, stats["likelihood"])

    densities = Densities(guide, parts.prior, parts.decode, parts.log_lik)
    return Model(parts.init, terms, generate, densities, None, update)


class _Parts(NamedTuple):
    """What a VQ-VAE is made of."""

    x_shape: tuple[int, ...]
    sizes: tuple[int, int, int]  # M, K and the numbers of a code
    encoder: Network  # from x [*x_shape] to [M code_size]
    input_scale: float  # of what it sees
    pixels: Emission  # of x given the codes, laid in one row
    prior_width: int

    def init(self, key: Array) -> Params:
        key_encoder, key_codes, key_pixels, key_prior = jax.random.split(key, 4)
        params = {
            "encoder": self.encoder.init(key_encoder),
            "codebook": init_codebook(key_codes, *self.sizes),
            **self.pixels.init(key_pixels),
        }
        if self.prior_width:
            params["prior"] = init_code_prior(key_prior, *self.sizes[:2], self.prior_width)
        return params

    def vectors(self, params: Params, x: Array) -> Array:
        """r [M, code_size] of an example."""
        check_shape(x, self.x_shape)
        row = self.encoder.apply(params["encoder"], self.input_scale * as_float(x))
        return row.reshape(self.sizes[0], self.sizes[2])

    def prior(self, params: Params, x: Array) -> Any:
        """p(z) over one-hot codes [M, K]."""
        del x
        if self.prior_width:
            return CodePrior(params["prior"], self.sizes[0])
        return OneHotCategorical(jnp.zeros(self.sizes[:2])).to_event(1)

    def decode(self, params: Params, x: Array, z: Array) -> Any:
        """p(x | z)."""
        del x
        return self.pixels.decode(params, (z @ params["codebook"]["codes"]).ravel())

    def log_lik(self, params: Params, x: Array, z: Array) -> Array:
        """log p(x | z), nats."""
        return self.pixels.log_lik(params, x, (z @ params["codebook"]["codes"]).ravel())


def _terms(parts: _Parts, params: Params, x: Array, commitment: float) -> Terms:
    """The bound of the nearest codes, with the decoder's gradient straight through to the
    vectors.
    """
    # 1. the nearest codes
    r = parts.vectors(params, x)
    codes = freeze(params["codebook"]["codes"])
    squares = squared_distances(freeze(r), codes)
    z = jax.nn.one_hot(squares.argmin(-1), parts.sizes[1], dtype=r.dtype)
    chosen = z @ codes
    h = (r + freeze(chosen - r)).ravel()
    # 2. KL(q || p) = -log p(k), since the guide is sure of k
    p = parts.prior(params, x)
    of_positions = p.log_probs if isinstance(p, CodePrior) else p.base_dist.log_prob
    penalty = commitment * ((r - chosen) ** 2).sum()
    # 3. what the codebook is told
    stats: dict[str, Any] = {"codebook": assignments(freeze(r), z, squares)}
    if parts.pixels.stats is not None:
        stats["likelihood"] = parts.pixels.stats(params, x, h)
    return Terms(parts.pixels.log_lik(params, x, h), {"z": -of_positions(z)}, penalty, stats)


def init_codebook(key: Array, num_positions: int, num_codes: int, code_size: int) -> Params:
    """K codes near 0, each as if it had an equal share of the M vectors of an example."""
    codes = _START * jax.random.normal(key, (num_codes, code_size))
    counts = jnp.full(num_codes, num_positions / num_codes, codes.dtype)
    return {
        "codes": codes,  # [K, code_size]
        "counts": counts,  # n [K], of vectors in an example
        "sums": counts[:, None] * codes,  # m [K, code_size]
        "unused": jnp.zeros(num_codes),  # steps since a vector chose the code
        "distance": jnp.full(
            (), code_size * _START**2, codes.dtype
        ),  # mean |r - e_k|^2 of the chosen code
    }


def squared_distances(r: Array, codes: Array) -> Array:
    """|r_m - e_k|^2, [M, K], of vectors [M, D] and codes [K, D]."""
    return ((r[:, None, :] - codes) ** 2).sum(-1)


def assignments(r: Array, z: Array, squares: Array) -> dict[str, Array]:
    """What the codebook is told of the vectors of one example: how many chose each code, their
    sums, and their squared distances from it.
    """
    return {
        "counts": z.sum(0),
        "sums": z.T @ r,
        "squares": (z * squares).sum(0),
    }


def move_codebook(
    key: Array, codebook: Params, stats: Params, *, decay: float, reset_after: int
) -> Params:
    """The codebook after a batch; see `vq_vae`.

    Args:
      key: for codes that are reset.
      codebook: of `init_codebook`.
      stats: of `assignments`, the mean over the batch.
      decay, reset_after: see `vq_vae`.
    """

    def average(old: Array, new: Array) -> Array:
        return decay * old + (1.0 - decay) * new

    # 1. the moving averages; a code without a count stays where it is
    counts = average(codebook["counts"], stats["counts"])
    sums = average(codebook["sums"], stats["sums"])
    has_count = counts > jnp.finfo(counts.dtype).tiny
    means = sums / jnp.where(has_count, counts, 1.0)[:, None]
    codes = jnp.where(has_count[:, None], means, codebook["codes"])
    num_vectors = stats["counts"].sum()
    distance = average(codebook["distance"], stats["squares"].sum() / num_vectors)
    # 2. codes that have long been unused
    unused = jnp.where(stats["counts"] > 0, 0.0, codebook["unused"] + 1.0)
    is_reset = unused >= reset_after
    key_which, key_noise = jax.random.split(key)
    num_codes, code_size = codes.shape
    which = jax.random.categorical(key_which, jnp.log(stats["counts"]), shape=(num_codes,))
    variance = stats["squares"][which] / (stats["counts"][which] * code_size)
    noise = jax.random.normal(key_noise, codes.shape)
    fresh = codes[which] + jnp.sqrt(variance)[:, None] * noise
    codes = jnp.where(is_reset[:, None], fresh, codes)
    counts = jnp.where(is_reset, num_vectors / num_codes, counts)
    return {
        "codes": codes,
        "counts": counts,
        "sums": jnp.where(is_reset[:, None], counts[:, None] * codes, sums),
        "unused": jnp.where(is_reset, 0.0, unused),
        "distance": distance,
    }


def _require(
    num_positions: int,
    num_codes: int,
    code_size: int,
    prior_width: int,
    decay: float,
    reset_after: int,
    temperature: float,
) -> None:
    if min(num_positions, code_size, reset_after) < 1 or num_codes < 2 or prior_width < 0:
        raise ValueError(
            "vq_vae expects positive sizes, at least 2 codes and a prior_width of at least 0; got "
            f"num_positions {num_positions}, num_codes {num_codes}, code_size {code_size}, "
            f"reset_after {reset_after}, prior_width {prior_width}."
        )
    if not 0.0 <= decay < 1.0 or not temperature > 0.0:
        raise ValueError(
            "vq_vae expects a decay from 0 to below 1 and a positive temperature; got "
            f"{decay} and {temperature}."
        )
