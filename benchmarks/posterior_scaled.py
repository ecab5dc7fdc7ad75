"""ADVI on regressions whose coordinates differ in scale by up to thousands."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

import vi_jax as vi
from benchmarks.posterior_models import Line, steps_of

SCALED = (
    "kidiq-kidscore_interaction",
    "earnings-logearn_interaction",
    "earnings-earn_height",
    "nes1972-nes",
    "sblri-blr",
    "mesquite-mesquite",
)


def scaled(root: str) -> list[Line]:
    """ADVI, full rank, on regressions whose coordinates differ in scale by up to thousands, against
    reference moments.
    """
    from experiments import posteriordb

    lines = []
    with jax.enable_x64(True):
        for name in SCALED:
            posterior = posteriordb.load(name, Path(root))
            target = vi.targets.from_numpyro(posterior.model)
            result = vi.fit(jax.random.key(0), target, vi.methods.advi(vi.families.full_rank))
            samples = posterior.flatten(result.sample(jax.random.key(1), 4000))
            off = np.max(np.abs(samples.mean(0) - posterior.mean) / posterior.sd)
            spread = np.max(np.abs(samples.std(0) / posterior.sd - 1))
            words = f"{spread:.1%} the worst standard deviation; {steps_of(result)}"
            lines.append((f"ADVI, full rank, {name}: worst mean error", f"{off:.2f} SD", words))
            jax.clear_caches()
        lines.append(_scaled_minibatches(root))
    return lines


def _scaled_minibatches(root: str) -> Line:
    """The first of them from 20 rows at a time."""
    from experiments import posteriordb

    posterior = posteriordb.load(SCALED[0], Path(root))
    hs, iq, score = (
        np.asarray(posterior.data[name], float) for name in ("mom_hs", "mom_iq", "kid_score")
    )
    design = np.stack([np.ones_like(hs), hs, iq, hs * iq], 1)

    def log_prior(z: Any) -> Any:
        return dist.HalfCauchy(2.5).log_prob(z["sigma"])

    def log_lik(z: Any, rows: Any) -> Any:
        x, y = rows
        return dist.Normal(x @ z["beta"], z["sigma"]).log_prob(y)

    example = {"beta": jnp.zeros(4), "sigma": jnp.ones(())}
    supports = {"beta": None, "sigma": dist.constraints.positive}
    target = vi.targets.from_rows(
        log_prior, log_lik, (design, score), example, supports, batch_size=20
    )
    result = vi.fit(jax.random.key(0), target, vi.methods.advi(vi.families.full_rank))
    z = result.sample(jax.random.key(1), 4000)
    samples = np.concatenate([np.asarray(z["beta"]), np.asarray(z["sigma"])[:, None]], 1)
    off = np.max(np.abs(samples.mean(0) - posterior.mean) / posterior.sd)
    words = (
        f"{np.max(np.abs(samples.std(0) / posterior.sd - 1)):.1%} the worst standard "
        f"deviation; {steps_of(result)}"
    )
    return (
        f"the first by minibatches of 20 of {len(score)} rows: worst mean error",
        f"{off:.2f} SD",
        words,
    )
