"""The alarm of posterior collapse."""

from typing import Any

import numpy as np

from experiments import build
from experiments.evals.base import Measures
from experiments.evals.latents import active_share

SETTLED_SHARE = 0.1  # of the run after the KL has its full weight, before the alarm may sound
ALARM_SHARE = 0.1  # of the latents: where no more are active, the posterior has collapsed
FULL = 0.99  # of the KL's final weight


def collapse_alarm(measures: Measures, config: Any, step: int) -> str | None:
    """What to tell of posterior collapse, if it is there: its extent, and what to try.

    A latent has collapsed when its posterior mean does not move with x (Burda et al. 2016); judged
    once the KL has had its full weight for a tenth of the run, since before that a low KL says
    nothing.
    """
    if "active" not in measures.arrays:
        return None
    total = config.train.num_steps
    active, num_latents = active_share(measures.arrays)
    settled = _warmup_steps(config) + SETTLED_SHARE * total
    if step < settled or active > ALARM_SHARE * num_latents:
        return None
    extent = f"only {active} of {num_latents} latents move with x"
    if active == 0:
        extent = "every latent ignores x"
    information = measures.summary["mutual_information"]["mean"]
    kl = measures.summary["kl"]["mean"]
    return (
        f"ALARM posterior collapse at step {step:,}: {extent}; KL {kl:.3f} nats, mutual "
        f"information {information:.3f} nats. Try {'; '.join(_remedies(measures, config))}."
    )


def _warmup_steps(config: Any) -> int:
    """The first step at which the KL has its full weight."""
    schedule = build.beta(config)
    if schedule is None:
        return 0
    steps = np.unique(np.linspace(0, config.train.num_steps, 101).astype(int))
    weights = np.array([float(schedule(step)) for step in steps])
    return int(steps[np.argmax(weights >= FULL * weights.max())])


def _remedies(measures: Measures, config: Any) -> list[str]:
    """What may help, none of which the objective would refuse."""
    objective = config.objective
    total = config.train.num_steps
    by_dimension = any(np.ndim(kl) for kl in measures.arrays["kl_per_dimension"].values())
    tries = []
    if build.takes(config, "objective", "beta"):
        tries.append(
            "--config.objective.beta=linear_warmup --config.objective.beta.num_steps="
            f"{max(total // 4, 1)}"
        )
    if by_dimension and build.takes(config, "objective", "free_bits"):
        tries.append("--config.objective.free_bits=0.1")
    beta = objective.get("beta", 1.0)
    if isinstance(beta, int | float) and beta > 1.0:
        tries.append("a smaller --config.objective.beta")
    if build.takes(config, "model.likelihood", "sigma"):
        tries.append("a smaller --config.model.likelihood.sigma")
    tries.append("a smaller decoder (--config.model.network.hidden)")
    return tries
