"""The shapes that everything composes by: guides, families and models. No mathematics here."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp

from vi_jax import linalg  # noqa: F401  (programs compiled from here on do not deadlock)

Array = jax.Array
Params = Any  # a pytree of arrays
LogJoint = Callable[[Any], Array]  # z -> log p(x, z), nats, a scalar
T = TypeVar("T")


@runtime_checkable
class Guide(Protocol):
    """An approximate posterior q of one example: any pytree with these two; every numpyro
    distribution is one.
    """

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Any:
        """Draws, each leaf [*sample_shape, *event_shape]; reparameterised, so that `jax.grad`
        passes through them.
        """

    def log_prob(self, value: Any) -> Array:
        """log q(z) in nats, a scalar for one z."""


class Family(NamedTuple):
    """A set of guides. Static sizes stay in the closure, arrays are in the parameters.

    Where `shared` is None, all-zero parameters are the neutral member (mean-field: the standard
    normal), and an encoder whose last layer starts near zero amortises the family by putting out
    all of them. Otherwise the parameters are a dict that starts at `init`, is trained for all
    examples together, and to which the encoder's output is added, but for the names in `shared`.
    """

    init: Callable[[Array], Params]  # key -> parameters
    guide: Callable[[Params], Guide]  # parameters -> q
    shared: tuple[str, ...] | None = None  # parameters that no encoder puts out


def family_of_size(family: Callable[[int], Family] | Family) -> Callable[[int], Family]:
    """D -> Family, of one or of a Family of a size already chosen."""
    return (lambda size: family) if isinstance(family, Family) else family


class Drawn(NamedTuple):
    """Marks a KL that is a difference of log densities at the draw, not a closed form; in
    `Terms.kl`. Its metric is called `kl_drawn/SITE`.
    """

    value: Array  # log q(z) - log p(z), nats


class Stacked(NamedTuple):
    """Marks a KL [L, ...] of many equal layers, the first axis theirs, or a `Drawn` one; in
    `Terms.kl`. Its metrics are called `kl/SITE/1` and so on, and free bits by layer go by them.
    """

    value: Any  # [L, ...], nats


class Terms(NamedTuple):
    """The terms of the ELBO of one example at one draw, nats: ELBO = log_lik - the sum of all
    leaves of kl.
    """

    log_lik: Array  # log p(x | z), []
    # {site: KL, of any shape over the site's own axes, all summed; or `Drawn`, or `Stacked`};
    # padded steps are 0
    kl: Mapping[str, Any]
    penalty: Any = ()  # minimised beside the bound and no part of it; all leaves are summed
    stats: Any = ()  # averaged over the batch, not differentiated; what `Model.update` is given


class Densities(NamedTuple):
    """The densities of one example x, for bounds of log-weights, log p(x) and wake-sleep."""

    guide: Callable[[Params, Any], Any]  # (params, x) -> q(z | x), a Guide
    # (params, x) -> p(z), or p(z | context) with the context a part of x, a Guide
    prior: Callable[[Params, Any], Any]
    # (params, x, z) -> p(x | z), a distribution; `sample` gives whole examples, the context copied
    # from x, and `mean` is that of the generated part alone
    decode: Callable[[Params, Any, Any], Any]
    # (params, x, z) -> log p(x | z), nats, a scalar, masks and offsets included
    log_lik: Callable[[Params, Any, Any], Array]
    # (params, x) -> what is minimised beside a bound of log-weights, such as -log q(y | x)
    penalty: Callable[[Params, Any], Any] | None = None
    # (params, x) -> E[mean of `decode`] under the guide, where it has a closed form
    predict: Callable[[Params, Any], Array] | None = None
    # (params, x, its guide q, z) -> log p(x, z) - log q(z), nats, where factors of both cancel
    log_weight: Callable[[Params, Any, Any, Any], Array] | None = None


class Model(NamedTuple):
    """A generative model with its inference network, for one example; x and z are pytrees.

    Most are made by `vi_jax.models.from_densities`. A model that brings its own `terms` vouches
    for their gradient.
    """

    init: Callable[[Array], Params]  # key -> parameters
    # (key, params, x) -> the terms of the ELBO at one draw; drops nothing
    terms: Callable[[Array, Params, Any], Terms]
    # (key, params, x) -> p(x | z) at z from the prior; x gives the context only
    generate: Callable[[Array, Params, Any], Any]
    densities: Densities | None = None  # None: they cannot be evaluated
    # as `terms`, with dropout of any kind; None: `terms`
    train_terms: Callable[[Array, Params, Any], Terms] | None = None
    # (key, params, mean stats of a batch) -> params, with the leaves that no gradient moves at
    # their new value: a codebook's averages, a variance at its optimum. With the attribute `m_step`
    # it is the M-step of terms that are an E-step: `losses.negative_elbo` computes them once, and
    # reports them at the old parameters
    update: Callable[[Array, Params, Any], Params] | None = None

    @property
    def encode(self) -> Callable[[Params, Any], Any]:
        """Deprecated: `densities.guide`."""
        return _deprecated(self, "encode", "densities.guide(params, x)").guide

    @property
    def prior(self) -> Callable[..., Any]:
        """Deprecated: `densities.prior`, which also takes x."""
        prior = _deprecated(self, "prior", "densities.prior(params, x)").prior
        return lambda params, x=None: prior(params, x)

    @property
    def decode(self) -> Callable[[Params, Any], Any]:
        """Deprecated: `densities.decode`, which also takes x."""
        decode = _deprecated(self, "decode", "densities.decode(params, x, z)").decode
        return lambda params, z: decode(params, None, z)

    @property
    def log_lik(self) -> Callable[[Params, Any, Any], Array]:
        """Deprecated: `densities.log_lik`."""
        return _deprecated(self, "log_lik", "densities.log_lik(params, x, z)").log_lik


class Prior(NamedTuple):
    """p(z) of a model, with parameters of its own."""

    init: Callable[[Array], Params]  # key -> the prior's parameters
    # (the prior's parameters, x, the model's guide: x -> q(z | x)) -> p(z), a Guide
    make: Callable[[Params, Any, Callable[[Any], Any]], Any]


def _deprecated(model: Model, old: str, new: str) -> Densities:
    if model.densities is None:
        raise AttributeError(f"this model has no densities, and so no {old}; it has its terms.")
    warnings.warn(
        f"Model.{old} is now Model.{new}; the old name goes with the next version.",
        DeprecationWarning,
        stacklevel=3,
    )
    return model.densities


LogDensity = Callable[[Array], Array]  # u [D] -> nats, a scalar


class MethodInfo(NamedTuple):
    """What a step of a method reports."""

    # nats, what the method watches: the ELBO or an estimate of it, unless the method says otherwise
    value: Array
    # int32, evaluations of the gradient of the log density so far, those of `init` included
    evaluations: Array
    done: Array  # bool: stopped by its own rule


class Method(NamedTuple):
    """A way to approximate a posterior given by its log density over u [D]; pure functions, for
    `vi.fit` or a loop of your own.
    """

    name: str
    init: Callable[
        [Array, LogDensity, Array], Any
    ]  # (key, log_density, start [D]) -> state, a pytree
    step: Callable[
        [Array, LogDensity, Any], tuple[Any, MethodInfo]
    ]  # (key, log_density, state) -> state, info
    guide: Callable[[Any], Any]  # state -> q over u, a Guide
    num_steps: int  # the most that `vi.fit` takes
    stochastic: bool = (
        False  # whether the log density may be one of a minibatch, another at each step
    )
    seen: Callable[[Any], tuple[Array, Array]] | None = (
        None  # state -> places [P, D] that it came from, and the ELBO at each, nats
    )
    # gradients that it usually takes, by which `vi.fit` chooses how hard XLA tries
    usual_evaluations: int = 100_000


def freeze(q: T) -> T:
    """The same guide with `stop_gradient` over its leaves: its density is differentiated in z, not
    in its parameters.
    """
    return jax.tree.map(jax.lax.stop_gradient, q)


def select(predicate: Array, yes: T, no: T) -> T:
    """The tree `yes` where the predicate holds, else `no`, leaf by leaf.

    Args:
      predicate: bool, a scalar, or of the leading axes that all leaves share.
      yes, no: pytrees of one structure.
    """

    def one(a: Any, b: Any) -> Array:
        missing = jnp.ndim(a) - jnp.ndim(predicate)
        chosen = predicate
        if jnp.ndim(predicate) and missing:
            chosen = jnp.reshape(predicate, jnp.shape(predicate) + (1,) * missing)
        return jnp.where(chosen, a, b)

    return jax.tree.map(one, yes, no)


def num_examples(batch: Any) -> int:
    """N of a pytree whose leaves are all [N, ...].

    Raises:
      ValueError: it has no leaves, or their leading axes differ.
    """
    leading = {leaf.shape[:1] for leaf in jax.tree.leaves(batch)}
    if len(leading) != 1 or leading == {()}:
        shapes = jax.tree.map(lambda leaf: leaf.shape, batch)
        raise ValueError(
            f"examples are a pytree of arrays [N, ...] of one N; got leaves of shapes {shapes}."
        )
    return leading.pop()[0]
