"""The shapes that everything composes by: guides, families and models. No mathematics here."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import jax

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


class Model(NamedTuple):
    """An amortised generative model of one example x, as pure functions of its parameters.

    `prior` and `log_lik` are apart because the closed-form KL, beta, annealing and N/B minibatch
    scaling all need it.
    """

    init: Callable[[Array], Params]  # key -> parameters
    encode: Callable[
        [Params, Array], Any
    ]  # (params, x) -> q(z | x), a Guide; measures also want its `mean`
    prior: Callable[[Params], Any]  # params -> p(z), a Guide
    decode: Callable[[Params, Array], Any]  # (params, z) -> p(x | z), a distribution over x
    log_lik: Callable[
        [Params, Array, Array], Array
    ]  # (params, x, z) -> log p(x | z), nats, a scalar
    refit: Callable[[Params, Array, Array], Params] | None = None
    # (params, x [B, ...], z [B, K, ...]) -> params in which those that have a closed-form optimum
    # on the batch are at it


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


def freeze(q: T) -> T:
    """The same guide with `stop_gradient` over its leaves: its density is differentiated in z, not
    in its parameters.
    """
    return jax.tree.map(jax.lax.stop_gradient, q)
