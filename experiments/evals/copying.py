"""Whether a model of spike counts copies what it is shown, and whether its inference has converged:
bins hidden at random, and the alarms of runs on spikes.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.evals import spikes
from experiments.evals.base import Evaluation, Measures, Row, Subject
from vi_jax.diagnostics.copying import copying

HIDDEN_SHARE = 0.2  # of the bins of each neuron
NUM_SAMPLES = 32  # of z
MAX_GAIN = 1e-2  # nats, of the last pass of a fixed point
MAX_OFF = 0.02  # of the spikes in all, predicted against counted
SIGMAS = 4.0


def make(subject: Subject) -> Evaluation | str:
    """The evaluation, of models of sequences of counts."""
    reason = spikes.lacks(subject)
    if reason:
        return reason

    def each(key: jax.Array, params: Any, x: Any) -> dict[str, Any]:
        (key_hide, key_z) = jax.random.split(key)
        is_hidden = jax.random.bernoulli(key_hide, HIDDEN_SHARE, x["observed"].shape)
        return hidden_bins(key_z, subject.model.densities, params, x, x["observed"] & is_hidden)

    return Evaluation(
        "copying", each, lambda key, params, x, terms: {"copying": terms}, summarise, rows
    )


def hidden_bins(key: jax.Array, densities: Any, params: Any, x: Any, hidden: Any) -> dict[str, Any]:
    """What a guide that was not shown some bins of one trial says of all, leaves [T, N]; and of its
    fixed point, where it is one, the gain of the last pass.
    """
    q = densities.guide(params, {**x, "observed": x["observed"] & ~hidden})
    z = q.sample(key, (NUM_SAMPLES,))

    def of_draw(z: Any) -> tuple[jax.Array, jax.Array]:
        made = densities.decode(params, x, z)
        return made.log_probs(x), made.mean

    (log_probs, means) = jax.vmap(of_draw)(z)
    gain = getattr(q, "gain", None)
    return {
        "log_prob": jax.nn.logsumexp(log_probs, 0) - jnp.log(float(NUM_SAMPLES)),
        "variance": log_probs.var(0, ddof=1),
        "rates": means.mean(0),
        "hidden": hidden,
        "counts": x["values"],
        "observed": x["observed"],
        "gain": jnp.zeros(()) if gain is None else gain,
    }


def summarise(found: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a split."""
    of = {name: np.asarray(leaf) for name, leaf in found["copying"].items()}
    hidden = of["hidden"]
    shown = of["observed"] & ~hidden
    excess = copying(of["log_prob"], of["variance"], of["counts"], shown, hidden)
    counted = np.where(hidden, of["counts"], 0.0).sum((1, 2), dtype=np.float64)
    predicted = np.where(hidden, of["rates"], 0.0).sum((1, 2), dtype=np.float64)
    total = max(counted.sum(), 1.0)
    off = predicted - counted
    return {
        "hidden_bins": {
            "bits_per_spike": excess.hidden,
            "expected": excess.expected,
            "excess": excess.excess,
            "stderr": excess.stderr,
            "copies": excess.is_copy,
        },
        "predicted_spikes": {
            "share": float(1.0 + off.sum() / total),
            "stderr": float(off.std() * len(off) ** 0.5 / total),
        },
        "last_gain": float(of["gain"].max()),
    }


def rows(summary: dict[str, Any]) -> list[Row]:
    """The lines of the closing table."""
    found = summary["hidden_bins"]
    excess = f"{found['excess']:+.4f} ± {found['stderr']:.4f}"
    note = f"            seen ones {excess} beyond their posterior"
    return [Row("bits per spike of hidden bins", f"{found['bits_per_spike']:>11.4f}", note)]


def alarms(measures: Measures, config: Any, step: int) -> list[str]:
    """What to tell of a run on spikes, each in a sentence."""
    del config
    summary = measures.summary
    if "hidden_bins" not in summary:
        return []
    told = []
    found = summary["hidden_bins"]
    if found["copies"]:
        told.append(
            f"ALARM copying at step {step:,}: bins that the guide is shown score "
            f"{found['excess']:.3f} bits per spike above hidden ones, beyond what its posterior "
            f"explains ({found['stderr']:.3f} standard error): it puts rates where it saw spikes. "
            "Train with coordinated dropout (lfads: --config.model.hide=0.3), or a smaller encoder."
        )
    if summary["last_gain"] > MAX_GAIN:
        told.append(
            f"ALARM inference not converged at step {step:,}: the last pass of the fixed point "
            f"gained {summary['last_gain']:.3g} nats of a trial; raise --config.model.num_passes."
        )
    share = summary["predicted_spikes"]
    off = abs(share["share"] - 1.0)
    if off > MAX_OFF and off > SIGMAS * share["stderr"]:
        told.append(
            f"ALARM rates at step {step:,}: the model predicts {share['share']:.3f} times the "
            "spikes of hidden bins that were counted; its rates are not to be read as they are."
        )
    return told
