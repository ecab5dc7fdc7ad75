"""Peers of vi.fit on a posterior of posteriordb: NumPyro's SVI, BlackJAX and PyMC."""

import time
from typing import Any

import jax
import numpy as np

from benchmarks.posteriordb_rows import NUM_DRAWS, Row, errors, row_of_peer

SVI_BLOCK = 500  # steps between two looks at NumPyro's moments
SVI_STEP = 0.01  # of its Adam
PYMC_STEPS = 10_000  # its default, one draw each


def run_peer(posterior: Any, peer: str, rows: list[Row]) -> Row:
    """A peer by its name; NumPyro's stops at the error or the seconds of the default in `rows`."""
    if peer.startswith("blackjax-"):
        return blackjax(posterior, peer.removeprefix("blackjax-"))
    if peer.startswith("pymc-"):
        return pymc(posterior, peer.removeprefix("pymc-"))
    default = next(
        row for row in reversed(rows) if row.posterior == posterior.name and row.method == "default"
    )
    return numpyro_svi(posterior, peer, default.mean_error, default.seconds)


def numpyro_svi(posterior: Any, guide_name: str, goal: float, limit: float) -> Row:
    """NumPyro's SVI with an automatic guide until its worst mean error is `goal`, or for `limit`
    seconds.
    """
    from numpyro.infer import SVI, Trace_ELBO, autoguide
    from numpyro.optim import Adam

    began = time.perf_counter()
    guide = getattr(autoguide, guide_name)(posterior.model)
    svi = SVI(posterior.model, guide, Adam(SVI_STEP), Trace_ELBO())
    state = None
    steps = 0
    looking = 0.0
    error = np.inf
    sites: dict[str, Any] = {}
    run = None
    while error > goal and time.perf_counter() - began - looking < limit:
        if run is None:
            state = svi.init(jax.random.key(0))
            run = jax.jit(
                lambda state: jax.lax.scan(
                    lambda s, _: svi.update(s), state, None, length=SVI_BLOCK
                )[0]
            )
        state = jax.block_until_ready(run(state))
        steps += SVI_BLOCK
        looked = time.perf_counter()
        draws = guide.sample_posterior(
            jax.random.key(1), svi.get_params(state), sample_shape=(NUM_DRAWS,)
        )
        sites = _with_deterministics(posterior, draws)
        error, _ = errors(posterior, sites)
        looking += time.perf_counter() - looked
    seconds = time.perf_counter() - began - looking
    word = "reached" if error <= goal else "slower"
    return row_of_peer(
        posterior,
        f"NumPyro {guide_name}",
        sites,
        evaluations=steps,
        seconds=seconds,
        word=word,
    )


def _with_deterministics(posterior: Any, draws: dict[str, Any]) -> dict[str, Any]:
    from numpyro.infer import Predictive

    latents = {name: value for name, value in draws.items() if not name.startswith("_auto")}
    return {**Predictive(posterior.model, latents)(jax.random.key(2)), **latents}


def blackjax(posterior: Any, kind: str) -> Row:
    """BlackJAX's Pathfinder or mean-field VI on the same log density."""
    import blackjax as bj
    import jax.numpy as jnp
    import optax

    import vi_jax as vi

    target = vi.targets.from_numpyro(posterior.model)
    began = time.perf_counter()
    start = jax.random.uniform(jax.random.key(0), (target.size,), minval=-2.0, maxval=2.0)
    if kind == "pathfinder":
        state, _ = jax.jit(
            lambda key: bj.vi.pathfinder.approximate(key, target.log_density, start)
        )(jax.random.key(1))
        u, _ = jax.jit(lambda key: bj.vi.pathfinder.sample(key, state, NUM_DRAWS))(
            jax.random.key(2)
        )
        steps = -1
    else:
        vi_ = bj.meanfield_vi(target.log_density, optax.adam(SVI_STEP), 10)
        steps = 5000

        def one(state: Any, key: Any) -> tuple[Any, None]:
            return vi_.step(key, state)[0], None

        run = jax.jit(
            lambda key: jax.lax.scan(
                one, vi_.init(jnp.zeros(target.size)), jax.random.split(key, steps)
            )[0]
        )
        u = vi_.sample(jax.random.key(2), run(jax.random.key(1)), NUM_DRAWS)
    u = jax.block_until_ready(u)
    seconds = time.perf_counter() - began
    return row_of_peer(
        posterior,
        f"BlackJAX {kind}",
        jax.jit(jax.vmap(target.constrain))(u),
        evaluations=steps * 10 if steps > 0 else -1,
        seconds=seconds,
    )


def pymc(posterior: Any, kind: str) -> Row:
    """PyMC's ADVI with its defaults, 10,000 steps of one draw from 0, on the same log density as an
    operation of PyTensor.
    """
    import pymc as pm
    from pytensor import wrap_jax

    import vi_jax as vi

    target = vi.targets.from_numpyro(posterior.model)
    began = time.perf_counter()
    with pm.Model():
        latents = pm.Flat("u", shape=target.size, initval=np.zeros(target.size))
        pm.Potential("log_density", wrap_jax(jax.jit(target.log_density))(latents))
        approximation = pm.fit(PYMC_STEPS, method=kind, random_seed=0, progressbar=False)
    draws = approximation.sample(NUM_DRAWS, random_seed=1, return_inferencedata=False)
    seconds = time.perf_counter() - began
    u = np.asarray(draws["u"]).reshape(-1, target.size)
    return row_of_peer(
        posterior,
        f"PyMC {kind}",
        jax.jit(jax.vmap(target.constrain))(u),
        evaluations=PYMC_STEPS,
        seconds=seconds,
    )
