"""The deep latent Gaussian model: independent noise at every layer of a generative network."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from vi_jax import families
from vi_jax.distributions import Program
from vi_jax.models import likelihoods, networks
from vi_jax.models._emission import check_shape, emission, from_emission
from vi_jax.models._kl import KL
from vi_jax.models._layers import as_float, init_all, require_sizes, standard_normal
from vi_jax.models._product import product
from vi_jax.models.likelihoods import Likelihood
from vi_jax.models.networks import Network
from vi_jax.models.vae import amortised_form
from vi_jax.types import Array, Family, Model, Params


def dlgm(
    x_shape: Sequence[int],
    *,
    num_latents: Sequence[int] = (200,),
    hidden: Sequence[Sequence[int]] = ((200, 200),),
    activation: Callable[[Array], Array] = nn.relu,
    family: Callable[[int], Family] = families.mean_field,
    likelihood: Likelihood | None = None,
    output_bias: Any = None,
    kl: KL = "closed",
) -> Model:
    """Any number of stochastic layers in noise form (Rezende et al. 2014, eq. 1 to 4 and sec. 4).

        xi_l ~ N(0, I) for every layer, h_L = G_L xi_L, h_l = T_l(h_{l+1}) + G_l xi_l,
        x | T_0(h_1);      d_l = MLP_l(d_{l-1}), d_0 = x, and q(xi | x) = prod_l q(xi_l | d_l)

    with networks T_l and matrices G_l. The latents are the noise, so that the prior is the same
    whatever the network, the guide's layers depend on x alone, and every KL is in closed form for
    Gaussian families. Bonnet's and Price's gradients of the paper are the estimator `price` of
    `losses.negative_bound`.

    Args:
      x_shape: of one example.
      num_latents: of each layer, from x upwards; the sites are xi1, xi2, ...
      hidden: widths of MLP_l, and mirrored of T_{l-1}.
      activation: between layers of the networks.
      family: of q(xi_l | x): `mean_field`, or the paper's `rank_one_precision`, C^-1 = D + u u'.
      likelihood: of x given h_1; Bernoulli if not given.
      output_bias: where the last bias of T_0 starts, see `networks.mlp_decoder`.
      kl: see `from_densities`; "closed" asks for a Gaussian family.

    Returns:
      A Model of parameters {"up", "heads", "decoder", "likelihood"}, with "guide" where the family
      has parameters of its own; "decoder" has "transforms" (T_l), "gains" (G_l) and "out" (T_0).
    """
    x_shape = tuple(x_shape)
    require_sizes("dlgm", num_latents, hidden)
    likelihood = likelihoods.bernoulli() if likelihood is None else likelihood
    names = [f"xi{number}" for number in range(1, len(num_latents) + 1)]
    sizes = dict(zip(names, num_latents, strict=True))
    out = networks.mlp_decoder(
        x_shape,
        likelihood.num_outputs,
        num_latents[0],
        tuple(hidden[0])[::-1],
        activation,
        output_bias,
    )
    pixels = emission(x_shape, _generator(sizes, hidden, activation, out), likelihood)
    guides = {name: family(size) for name, size in sizes.items()}
    recogniser = _recogniser(x_shape, guides, hidden, activation)

    def init(key: Array) -> Params:
        key_guide, key_pixels = jax.random.split(key)
        return {**recogniser.init(key_guide), **pixels.init(key_pixels)}

    def noise(params: Params, context: None, site: Callable[..., Any]) -> None:
        for name in names[::-1]:
            site(name, standard_normal(sizes[name]), given=())

    def guide(params: Params, x: Array) -> Program:
        check_shape(x, x_shape)
        return recogniser.guide(params, as_float(x))

    return from_emission(init, guide, lambda params, x: Program(None, None, noise), pixels, kl=kl)


class _Recogniser(NamedTuple):
    """q(xi | x)."""

    init: Callable[[Array], Params]  # key -> its parameters
    guide: Callable[[Params, Array], Program]  # (the model's parameters, x) -> q


def _recogniser(
    x_shape: tuple[int, ...],
    guides: Mapping[str, Family],
    hidden: Sequence[Sequence[int]],
    activation: Callable[[Array], Array],
) -> _Recogniser:
    """MLP_l, and the linear layer from d_l to the parameters of q(xi_l | x), by site."""
    names = list(guides)
    forms = {name: amortised_form(each) for name, each in guides.items()}
    up = {}
    heads = {}
    below = x_shape
    for name, widths in zip(names, hidden, strict=True):
        width = widths[-1]
        up[name] = networks.mlp_encoder(below, width, tuple(widths[:-1]), activation)
        below = (width,)
        num_outputs, _ = forms[name]
        heads[name] = networks.mlp_encoder(below, num_outputs, (), activation)
    owners = [name for name, each in guides.items() if each.shared is not None]

    def init(key: Array) -> Params:
        key_up, key_heads, key_own = jax.random.split(key, 3)
        params = {"up": init_all(key_up, up), "heads": init_all(key_heads, heads)}
        if not owners:
            return params
        keys = jax.random.split(key_own, len(owners))
        own = {name: guides[name].init(k) for k, name in zip(keys, owners, strict=True)}
        return {**params, "guide": own}

    def independent(own: Params, rows: Mapping[str, Array], site: Callable[..., Any]) -> None:
        for name in names[::-1]:
            _, to_params = forms[name]
            site(name, guides[name].guide(to_params(own.get(name), rows[name])), given=())

    def guide(params: Params, x: Array) -> Program:
        rows = {}
        d = x
        for name in names:
            d = activation(up[name].apply(params["up"][name], d))
            rows[name] = heads[name].apply(params["heads"][name], d)
        return Program(params.get("guide", {}), rows, independent)

    return _Recogniser(init, guide)


def _generator(
    sizes: Mapping[str, int],
    hidden: Sequence[Sequence[int]],
    activation: Callable[[Array], Array],
    out: Network,
) -> Network:
    """{site: xi_l} -> T_0(h_1), the outputs of `out`."""
    names = list(sizes)
    transforms = {}
    for level, name in enumerate(names[:-1]):
        above = sizes[names[level + 1]]
        widths = tuple(hidden[level + 1])[::-1]
        transforms[name] = networks.mlp_decoder((sizes[name],), 1, above, widths, activation)

    def init(key: Array) -> Params:
        key_transforms, key_gains, key_out = jax.random.split(key, 3)
        keys = jax.random.split(key_gains, len(names))
        gains = {
            name: size**-0.5 * jax.random.normal(k, (size, size))
            for k, (name, size) in zip(keys, sizes.items(), strict=True)
        }
        return {
            "transforms": init_all(key_transforms, transforms),
            "gains": gains,
            "out": out.init(key_out),
        }

    def apply(params: Params, xi: Any) -> Array:
        top = names[-1]
        h = product(xi[top], params["gains"][top])
        for name in names[-2::-1]:
            mean = transforms[name].apply(params["transforms"][name], h)[:, 0]
            h = mean + product(xi[name], params["gains"][name])
        return out.apply(params["out"], h)

    return Network(init, apply)
