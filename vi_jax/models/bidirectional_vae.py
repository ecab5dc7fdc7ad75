"""The bidirectional VAE: many stochastic layers on one residual path, inferred top down."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from vi_jax.distributions import Program, paired
from vi_jax.models import _residual, likelihoods
from vi_jax.models._emission import Emission, check_shape, emission
from vi_jax.models._layers import as_float, diagonal_by_softplus, site_names
from vi_jax.models.from_densities import from_densities
from vi_jax.models.likelihoods import Likelihood
from vi_jax.models.networks import Network, mlp_decoder
from vi_jax.types import Array, Model, Params


def bidirectional_vae(
    x_shape: Sequence[int],
    *,
    num_latents: Sequence[int] = (32, 16, 16, 8, 8, 8),
    width: int = 256,
    activation: Callable[[Array], Array] = nn.silu,
    likelihood: Likelihood | None = None,
    output_bias: Any = None,
) -> Model:
    """Stochastic layers that each add to one residual path of dense layers, as in IAF-ResNet
    (Kingma et al. 2016, sec. 4), NVAE and VDVAE (Child 2021, fig. 3), without an order of pixels.

        d_l = d_{l-1} + block(d_{l-1}), up from x;    h, down from a constant:
        p(z_l | z_>l) by h;  q(z_l | z_>l, x) by h and d_l, as a move from p;  h += merge(z_l),
        h += block(h);  x | h.

    The guide's Gaussian is p's, moved by some of its standard deviations and scaled, so that the
    KL, closed at every layer, is 0 where it says nothing. No batch normalisation.

    Args:
      x_shape: of one example, any rank.
      num_latents: of each layer, from x upwards; the sites are z1, z2, ...
      width: of both paths.
      activation: within blocks.
      likelihood: of x given h; Bernoulli if not given.
      output_bias: where the decoder's last bias starts, see `networks.mlp_decoder`.

    Returns:
      A Model of parameters {"up", "top", "layers", "decoder", "likelihood"}.

    Raises:
      ValueError: a size is not positive.
    """
    x_shape = tuple(x_shape)
    require_layers("bidirectional_vae", num_latents, width)
    likelihood = likelihoods.bernoulli() if likelihood is None else likelihood
    gain = len(num_latents) ** -0.5
    block = _residual.residual(_residual.dense, width, activation, gain=gain)
    stem = _residual.chain(_residual.pure(jnp.ravel), _residual.dense(math.prod(x_shape), width))
    layers = []
    up = _residual.chain(stem, block)
    for size in num_latents:
        layers.append(
            Layer(
                shape=(width,),
                latents=(size,),
                up=up,
                prior=_residual.dense(width, 2 * size, gain=0.1),
                guide=_residual.dense(2 * width, 2 * size, gain=0.1),
                merge=_residual.dense(size, width),
                down=block,
            )
        )
        up = block
    decoder = mlp_decoder(x_shape, likelihood.num_outputs, width, (width,), activation, output_bias)
    pixels = emission(x_shape, decoder, likelihood)
    return of_layers(x_shape, layers, pixels, scale=likelihood.scale)


class Layer(NamedTuple):
    """The networks of one stochastic layer."""

    shape: tuple[int, ...]  # of both paths at it
    latents: tuple[int, ...]  # shape of z_l before it is laid in one row
    up: Network  # d_{l-1} -> d_l
    prior: Network  # h -> [..., 2 c], means and raw scales by the last axis
    guide: Network  # h and d_l by the last axis -> the same
    merge: Network  # z_l -> what is added to h
    down: Network  # h -> that of the layer below


def of_layers(
    x_shape: tuple[int, ...], layers: Sequence[Layer], pixels: Emission, *, scale: float
) -> Model:
    """The model of any such layers, from x upwards; `pixels` decodes h below the lowest, and the
    way up sees x times `scale`.
    """
    parts = _Parts(dict(zip(site_names(len(layers)), layers, strict=True)), pixels)
    function_q, function_p = paired(parts.top_down)

    def guide(params: Params, x: Array) -> Program:
        check_shape(x, x_shape)
        found = parts.on_the_way_up(params["up"], scale * as_float(x))
        return Program(_generative(params), found, function_q)

    def prior(params: Params, x: Array) -> Program:
        return Program(_generative(params), None, function_p)

    def decoded_from(params: Params, z: Any) -> Array:
        return parts.top_down(params, None, lambda name, p, q, given=None: z[name])

    def decode(params: Params, x: Array, z: Any) -> Any:
        del x
        return pixels.decode(params, decoded_from(params, z))

    def log_lik(params: Params, x: Array, z: Any) -> Array:
        return pixels.log_lik(params, x, decoded_from(params, z))

    def of_example(params: Params, x: Array, z: Any) -> Any:
        return pixels.stats(params, x, decoded_from(params, z))  # type: ignore[misc]

    stats = None if pixels.stats is None else of_example
    return from_densities(
        parts.init,
        guide,
        prior,
        decode,
        log_lik,
        kl="closed",
        stats=stats,
        update=pixels.update,
    )


class _Parts(NamedTuple):
    """The layers by site, from x upwards, and what is below them."""

    layers: dict[str, Layer]
    pixels: Emission

    def init(self, key: Array) -> Params:
        key_up, key_layers, key_pixels = jax.random.split(key, 3)
        (*_, top) = self.layers.values()
        own = {
            name: _init_each(jax.random.fold_in(key_layers, number), _path_of(layer))
            for number, (name, layer) in enumerate(self.layers.items())
        }
        return {
            "up": _init_each(key_up, {name: layer.up for name, layer in self.layers.items()}),
            "top": jnp.zeros(top.shape),
            "layers": own,
            **self.pixels.init(key_pixels),
        }

    def on_the_way_up(self, params: Params, d: Array) -> dict[str, Array]:
        """{site: d_l}."""
        found = {}
        for name, layer in self.layers.items():
            d = layer.up.apply(params[name], d)
            found[name] = d
        return found

    def top_down(self, params: Params, found: Any, site: Callable[..., Any]) -> Array:
        """From the top down to what x is decoded from; `found` is {site: d_l}, which the prior does
        not look at.
        """
        h = params["top"]
        for name, layer in reversed(self.layers.items()):
            own = params["layers"][name]
            p = diagonal_by_softplus(_by_halves(layer.prior.apply(own["prior"], h)))

            def of_data(p: Any, name: str = name, h: Array = h) -> dist.Independent:
                seen = jnp.concatenate([h, found[name]], -1)
                network = self.layers[name].guide
                return _moved(p, network.apply(params["layers"][name]["guide"], seen))

            z = site(name, p, of_data)
            h = h + layer.merge.apply(own["merge"], z.reshape(layer.latents))
            h = layer.down.apply(own["down"], h)
        return h


def require_layers(model: str, num_latents: Sequence[int], *sizes: int) -> None:
    """Raises ValueError where there is no layer, or a size is not positive."""
    if not num_latents or min(*num_latents, *sizes) < 1:
        raise ValueError(
            f"{model} expects a positive number of latents for each layer and positive widths; got "
            f"num_latents {tuple(num_latents)} and {sizes}."
        )


def _path_of(layer: Layer) -> dict[str, Network]:
    return {
        "prior": layer.prior,
        "guide": layer.guide,
        "merge": layer.merge,
        "down": layer.down,
    }


def _init_each(key: Array, networks: dict[str, Network]) -> dict[str, Params]:
    keys = jax.random.split(key, len(networks))
    return {name: net.init(k) for k, (name, net) in zip(keys, networks.items(), strict=True)}


def _generative(params: Params) -> Params:
    return {"top": params["top"], "layers": params["layers"]}


def _by_halves(row: Array) -> Array:
    """[..., 2 c] -> all means, then all raw scales, in one row."""
    return jnp.concatenate([half.ravel() for half in jnp.split(row, 2, -1)])


def _moved(p: dist.Independent, row: Array) -> dist.Independent:
    """p moved by a number of its standard deviations, and scaled."""
    change = diagonal_by_softplus(_by_halves(row)).base_dist
    before = p.base_dist
    loc = before.loc + before.scale * change.loc
    return dist.Normal(loc, before.scale * change.scale).to_event(1)
