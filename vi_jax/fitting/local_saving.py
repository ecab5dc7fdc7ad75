"""What a folder has of a target with local latent variables."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax.fitting.local_result import LocalResult
from vi_jax.fitting.without_target import HOW, NUM_COMPARED
from vi_jax.targets.local import LocalTarget
from vi_jax.types import Array


def described_local(result: LocalResult) -> dict[str, Any]:
    """The names and sizes of a target, and its log density at a few samples of theta."""
    target = result.target
    u = result.guide.shared.sample(jax.random.key(0), (NUM_COMPARED,))
    return {
        "names": target.names,
        "local_names": target.local_names,
        "num_rows": target.num_rows,
        "batch_size": target.batch_size,
        "u": u,
        "values": local_values(target, u),
    }


def local_values(target: LocalTarget, u: Array) -> np.ndarray:
    """log p(theta) and the mean of log p(x_n, z_n | theta) over the first batch at z_n of v_n = 0,
    their sum, [S], nats.
    """
    v = jnp.zeros((target.batch_size, target.local_size), u.dtype)
    index = jnp.arange(target.batch_size)

    def one(u: Array) -> Array:
        return target.log_global(u) + target.log_rows(u, v, index).mean()

    return np.asarray(jax.jit(jax.vmap(one))(u))


def nothing_of_local(known: dict[str, Any]) -> LocalTarget:
    """A target without densities, of what `described_local` tells."""
    return LocalTarget(
        _refuse,
        _refuse,
        _refuse,
        _refuse,
        _refuse,
        known["names"],
        known["local_names"],
        known["num_rows"],
        known["batch_size"],
    )


def _refuse(*args: Any) -> Any:
    del args
    raise ValueError(
        "this result was loaded without its target, which its rows and sites are computed by: "
        f"{HOW}."
    )
