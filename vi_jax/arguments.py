"""Checks of arguments that many public functions take: keys, guides, densities, numbers.

Each returns the argument as it is to be used, or raises a TypeError or a ValueError that says what
came, what was expected and what to do. Under `jit` and `vmap` they look at types and shapes alone.
"""

import operator
from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array
_RAW_SIZES = (2, 4)  # words of a raw key: of threefry, and of rbg


def as_key(key: Any, caller: str) -> Array:
    """One typed PRNG key, of jax.random.key or of the older jax.random.PRNGKey.

    Raises:
      TypeError: it is no key.
      ValueError: it is a batch of keys.
    """
    dtype = getattr(key, "dtype", None)
    is_array = isinstance(key, jax.Array) or hasattr(key, "__array__")
    if is_array and dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key):
        if key.ndim:
            raise ValueError(
                f"{caller} expects one key; got a batch of keys of shape {key.shape}. Take one of "
                "them, or vmap over keys."
            )
        return key
    if is_array and dtype == jnp.uint32 and key.shape in [(size,) for size in _RAW_SIZES]:
        return jax.random.wrap_key_data(jnp.asarray(key), impl=_raw_impl(key.shape[0]))
    raise TypeError(
        f"{caller} expects a PRNG key as its first argument, jax.random.key(0); got "
        f"{describe(key)}."
    )


def _raw_impl(num_words: int) -> str:
    """The generator of a raw key: the default one where its keys have so many words."""
    default = str(getattr(jax.config, "jax_default_prng_impl", ""))
    words = {"threefry2x32": 2, "rbg": 4, "unsafe_rbg": 4}
    if words.get(default) == num_words:
        return default
    return "threefry2x32" if num_words == 2 else "rbg"


def is_guide(q: Any) -> bool:
    """Whether it has what a guide has."""
    return not isinstance(q, type) and hasattr(q, "sample") and hasattr(q, "log_prob")


def require_guide(q: Any, caller: str, *, name: str = "q") -> None:
    """Raises TypeError unless q is an instance with `sample` and `log_prob`."""
    if is_guide(q):
        return
    hint = "every numpyro distribution is one"
    if isinstance(q, type) and hasattr(q, "sample"):
        hint = f"call the class with its parameters, {q.__name__}(...)"
    elif hasattr(q, "guide") and hasattr(q, "init"):
        hint = "a family makes guides of parameters, family.guide(params)"
    elif callable(q):
        hint = "look at the order of the arguments"
    raise TypeError(
        f"{caller} expects {name} to be a guide with sample and log_prob; got {describe(q)}: "
        f"{hint}."
    )


def require_function(function: Any, caller: str, *, name: str) -> None:
    """Raises TypeError unless it is a function, and no guide in the place of one."""
    if callable(function) and not is_guide(function) and not isinstance(function, type):
        return
    hint = "look at the order of the arguments" if is_guide(function) else "give the function"
    raise TypeError(f"{caller} expects {name} to be a function; got {describe(function)}: {hint}.")


def require_functions(caller: str, bound: Any, log_joint: Any, q: Any) -> None:
    """Raises TypeError unless all three are of their kind: some are swapped, or missing."""
    if is_guide(bound):
        raise TypeError(
            f"{caller} expects (key, bound, log_joint, q); got {describe(bound)} as the bound."
        )
    if isinstance(bound, str) or not callable(bound):
        raise TypeError(
            f"{caller} expects the bound itself, a function such as vi.bounds.elbo; got "
            f"{describe(bound)}."
        )
    require_guide(q, caller)
    require_function(log_joint, caller, name="log_joint")
    if str(getattr(log_joint, "__module__", "")).startswith("vi_jax.bounds."):
        raise TypeError(
            f"{caller} expects (key, bound, log_joint, q); got {describe(log_joint)} of vi.bounds "
            "as the log_joint."
        )


def require_call(
    caller: str, key: Any, bound: Any, log_joint: Any, q: Any, num_samples: Any
) -> tuple[Array, int]:
    """The checks that the gradient estimators share; returns the key and the number of samples.

    Raises:
      TypeError, ValueError: an argument is of another kind, or some are swapped.
    """
    key = as_key(key, caller)
    require_functions(caller, bound, log_joint, q)
    return key, as_count(num_samples, "num_samples", what="K")


def as_count(
    number: Any, name: str, *, least: int = 1, most: int | None = None, what: str = ""
) -> int:
    """A whole number in a range, as a Python int.

    Args:
      what: more about it, for the message.

    Raises:
      ValueError: it is another number, or none.
    """
    is_bool = isinstance(number, bool) or str(getattr(number, "dtype", "")) == "bool"
    try:
        whole = least - 1 if is_bool else operator.index(number)
    except (TypeError, jax.errors.TracerIntegerConversionError):
        whole = least - 1
    if whole < least or (most is not None and whole > most):
        bounds = f"at least {least}" if most is None else f"{least} to {most:,}"
        got = describe(number) if isinstance(number, jax.core.Tracer) else repr(number)
        raise ValueError(
            f"{name}{f' ({what})' if what else ''} has to be a whole number of {bounds}; got {got}."
        )
    return whole


def require_pair(caller: str, q: Any, p: Any) -> None:
    """Raises unless q and p are distributions over one space, with batch shapes that broadcast."""
    for name, d in (("q", q), ("p", p)):
        if isinstance(d, type) or not hasattr(d, "event_shape") or not hasattr(d, "batch_shape"):
            hint = (
                f"call the class, {d.__name__}(...)" if isinstance(d, type) else "one of numpyro's"
            )
            raise TypeError(
                f"{caller} expects {name} to be a distribution; got {describe(d)}: {hint}."
            )
    kinds = f"({type(q).__name__}, {type(p).__name__})"
    if q.event_shape != p.event_shape:
        raise ValueError(
            f"{caller} expects q and p over one space; got event shapes {q.event_shape} and "
            f"{p.event_shape} {kinds}. Use .to_event(n) to say which axes are one event."
        )
    try:
        jnp.broadcast_shapes(q.batch_shape, p.batch_shape)
    except ValueError:
        raise ValueError(
            f"{caller} expects q and p with batch shapes that broadcast; got {q.batch_shape} and "
            f"{p.batch_shape} {kinds}."
        ) from None


def require_optimizer(optimizer: Any, caller: str) -> None:
    """Raises TypeError unless it is an optax transformation, made by its factory."""
    if hasattr(optimizer, "init") and hasattr(optimizer, "update"):
        return
    hint = "call its factory, such as optax.adam(1e-3)" if callable(optimizer) else "one of optax's"
    raise TypeError(
        f"{caller} expects an optimizer with init and update; got {describe(optimizer)}: {hint}."
    )


def require_model(model: Any, caller: str) -> None:
    """Raises TypeError unless it has the `init` of a model."""
    if not callable(getattr(model, "init", None)):
        hint = "call its factory, such as vi.models.vae(x_shape, num_latents=20)"
        raise TypeError(f"{caller} expects a model; got {describe(model)}: {hint}.")


def require_rows(data: Any, caller: str, *, name: str = "data") -> None:
    """Raises unless it is an array [N, ...], or a pytree of them, of at least one row."""
    leaves = jax.tree.leaves(data)
    wanted = f"{caller} expects {name} to be an array [N, ...] or a pytree of them"
    if not leaves or hasattr(data, "log_prob"):
        raise TypeError(f"{wanted}; got {describe(data)}.")
    for leaf in leaves:
        if not hasattr(leaf, "dtype") or not isinstance(getattr(leaf, "shape", None), tuple):
            raise TypeError(f"{wanted}; got {describe(leaf)}.")
    lengths = sorted({leaf.shape[:1] for leaf in leaves})
    if lengths[0] in ((), (0,)) or len(lengths) > 1:
        shapes = ", ".join(str(tuple(leaf.shape)) for leaf in leaves[:4])
        raise ValueError(f"{wanted}, with one N >= 1; got shapes {shapes}.")


def require_scalars(**values: Any) -> None:
    """Raises unless each is one floating-point number, as a log density at one z is.

    Args:
      values: what was returned, by the name of the function that did; `q_log_prob` for q.log_prob.

    Raises:
      TypeError: None, a tuple, text; or integers and complex numbers, which carry no gradient.
      ValueError: an array of several numbers.
    """
    found = {name.replace("q_", "q."): value for name, value in values.items()}
    for name, value in found.items():
        if value is None:
            raise TypeError(
                f"{name} returns None; it has to return one number in nats: is a `return` missing?"
            )
        if not hasattr(value, "dtype") and not isinstance(value, bool | int | float | complex):
            raise TypeError(
                f"{name} returns {describe(value)}; it has to return one number in nats."
            )
    if any(jnp.ndim(value) for value in found.values()):
        raise ValueError(
            f"{' and '.join(found)} {'have' if len(found) > 1 else 'has'} to be a scalar for one "
            f"z; got shapes {' and '.join(str(jnp.shape(value)) for value in found.values())}. Sum "
            "log_joint over its observations; give a guide of independent coordinates one event "
            "axis, q.to_event(1); vmap over examples."
        )
    for name, value in found.items():
        dtype = jnp.result_type(value)
        if not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(
                f"{name} returns {dtype}; it has to return a floating-point number, which has a "
                "gradient."
            )


def describe(value: Any) -> str:
    """What a value is, in a few words: `None`, `the class Normal`, `an array of shape (3,)`."""
    if value is None or isinstance(value, bool | int | float | complex):
        return repr(value)
    if isinstance(value, str):
        return f"the text {value[:40]!r}"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"an array of {value.dtype} and shape {tuple(value.shape)}"
    if callable(value) and hasattr(value, "__name__"):
        return f"the function {value.__name__}"
    return f"an object of type {type(value).__name__}"
