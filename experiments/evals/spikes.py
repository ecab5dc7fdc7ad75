"""What a model of spike counts predicts: neurons that it was not shown, and where they are known
the rates and the latents.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import figures
from experiments.data.columns import COUNTS
from experiments.evals.base import Evaluation, Measures, Row, Subject
from vi_jax.diagnostics import spikes

HELD_OUT_EVERY = 4  # neurons 3, 7, 11, ... are hidden from the guide, and predicted
LATER = 5  # the last of so many parts of a trial is hidden, and predicted
MIN_NEURONS = 8
NUM_SAMPLES = 64  # of z, where a model states no prediction
PERCENT = 100.0
MAX_SHOWN = 100  # trials that figures choose from


def make(subject: Subject) -> Evaluation | str:
    """The evaluation, of models of sequences of counts."""
    kinds = subject.kinds
    reason = lacks(subject)
    if reason:
        return reason
    hidden = held_out(len(kinds))
    densities: Any = subject.model.densities

    def each(key: jax.Array, params: Any, x: Any) -> dict[str, Any]:
        key_rates, key_path = jax.random.split(key)
        observed = x["observed"]
        is_later = later(observed)
        shown = jnp.stack([observed, observed & ~hidden, observed & ~is_later])

        def of_shown(key: jax.Array, shown: jax.Array) -> tuple[jax.Array, jax.Array]:
            key, own = jax.random.split(key)
            return key, predicted(own, subject.model, params, {**x, "observed": shown})

        # One after the other: the guide, which is most of what there is to compile, then has the
        # shapes that it has elsewhere, and XLA compiles its loops once.
        _, rates = jax.lax.scan(of_shown, key_rates, shown)
        q = densities.guide(params, x)
        return {
            "counts": x["values"],
            "observed": observed,
            "rates": rates[0],
            "rates_hidden": rates[1][:, hidden],
            "rates_later": rates[2],
            "is_later": is_later & observed,
            "trajectory": _trajectory(key_path, densities, params, x, q),
            "states": _states(q),
        }

    def summarise(found: dict[str, Any]) -> dict[str, Any]:
        return summary_of(found["spikes"], hidden, subject.truth)

    return Evaluation(
        "spikes", each, lambda key, params, x, terms: {"spikes": terms}, summarise, rows
    )


def held_out(num: int) -> np.ndarray:
    """Which of the neurons are hidden, bool [N]."""
    return np.arange(num) % HELD_OUT_EVERY == HELD_OUT_EVERY - 1


def later(observed: jax.Array) -> jax.Array:
    """The last fifth of the steps of a trial, which ends with the last that is observed, [T, 1]."""
    steps = jnp.arange(observed.shape[0])
    length = jnp.max(jnp.where(observed.any(-1), steps + 1, 0))
    return (steps >= length - length // LATER)[:, None]


def lacks(subject: Subject) -> str:
    """Why a subject is no model of spike counts; "" where it is one."""
    kinds = subject.kinds
    if subject.model.densities is None or not subject.is_sequences:
        return "the data are no sequences"
    if len(kinds) < MIN_NEURONS or not set(kinds) <= set(COUNTS):
        return f"the columns are not {MIN_NEURONS} counts or more"
    return ""


def predicted(key: jax.Array, model: Any, params: Any, x: Any) -> jax.Array:
    """E[x | what is observed] of each step and column, [T, N]: the model's own where it states it,
    else the mean over samples of z.
    """
    densities = model.densities
    if densities.predict is not None:
        return densities.predict(params, x)
    z = densities.guide(params, x).sample(key, (NUM_SAMPLES,))
    return jax.vmap(lambda z: densities.decode(params, x, z).mean)(z).mean(0)


def _trajectory(key: jax.Array, densities: Any, params: Any, x: Any, q: Any) -> jax.Array:
    """Means and SDs of latents by step, [2, T, D]: those of a guide over steps, else of the factors
    that p(x | z) states; of no steps where there are neither.
    """
    q = getattr(q, "path", q)  # beside states
    num_steps = x["values"].shape[0]
    event: Any = getattr(q, "event_shape", ())
    if len(event) == 2 and event[0] == num_steps:
        return jnp.stack([q.mean, jnp.sqrt(q.variance)])

    def factors(z: Any) -> Any:
        return getattr(densities.decode(params, x, z), "factors", None)

    if jax.eval_shape(factors, q.sample(key)) is None:
        return jnp.zeros((2, 0, 0))
    drawn = jax.vmap(factors)(q.sample(jax.random.clone(key), (NUM_SAMPLES,)))
    return jnp.stack([drawn.mean(0), drawn.std(0)])


def _states(q: Any) -> jax.Array:
    """The likeliest of the states of each move, [T - 1]; of no length where there are none."""
    states = getattr(q, "states", None)
    if states is None:
        return jnp.zeros(0, jnp.int32)
    return jnp.argmax(states.mean, axis=-1)


def summary_of(
    found: dict[str, Any], hidden: np.ndarray, truth: dict[str, np.ndarray] | None
) -> dict[str, Any]:
    """The numbers of a split."""
    counts = np.asarray(found["counts"])
    observed = np.asarray(found["observed"])
    rates = np.asarray(found["rates"], np.float64)
    co = spikes.bits_per_spike(
        np.asarray(found["rates_hidden"]), counts[..., hidden], observed[..., hidden]
    )
    ahead = spikes.bits_per_spike(
        np.asarray(found["rates_later"]), counts, np.asarray(found["is_later"])
    )
    summary: dict[str, Any] = {
        "co_bps": {"mean": co.value, "stderr": co.stderr},
        "fp_bps": {"mean": ahead.value, "stderr": ahead.stderr},
    }
    if truth is None:
        return summary
    if "rates" in truth:
        true = truth["rates"]
        oracle = spikes.bits_per_spike(
            true[..., hidden], counts[..., hidden], observed[..., hidden]
        )
        summary["co_bps_of_truth"] = oracle.value
        summary["co_bps_share"] = co.value / oracle.value
        summary["rate_r2"] = spikes.rate_r2(rates, true)
        floor = spikes.SMALLEST_RATE
        logs = [np.log(np.maximum(each, floor)) for each in (rates, true)]
        summary["log_rate_r2"] = spikes.rate_r2(logs[0], logs[1])
    states = np.asarray(found["states"])
    if "states" in truth and states.size:
        summary["states_share"] = spikes.states_share(states, truth["states"][:, :-1])
    path = np.asarray(found["trajectory"])[:, 0]
    if "latents" in truth and path.size:
        summary["latent_r2"] = spikes.latent_r2(path, truth["latents"]).tolist()
    return summary


def rows(summary: dict[str, Any]) -> list[Row]:
    """The lines of the closing table."""
    co = summary["co_bps"]
    note = f"bits per spike of every {HELD_OUT_EVERY}th neuron, hidden"
    if "co_bps_share" in summary:
        share = PERCENT * summary["co_bps_share"]
        note = f"{share:.0f} % of that of the true rates, {summary['co_bps_of_truth']:.4f}"
    found = [Row("co-smoothing", f"{co['mean']:>11.4f} ± {co['stderr']:<8.4f}", note)]
    ahead = summary["fp_bps"]
    value = f"{ahead['mean']:>11.4f} ± {ahead['stderr']:<8.4f}"
    found.append(Row("forward prediction", value, "bits per spike of the last fifth, hidden"))
    if "rate_r2" in summary:
        logs = f"of log rates {summary['log_rate_r2']:.3f}"
        found.append(Row("R² of the rates", f"{summary['rate_r2']:>11.3f}", f"            {logs}"))
    if "states_share" in summary:
        found.append(Row("states that are the true ones", f"{summary['states_share']:>11.3f}"))
    if "latent_r2" in summary:
        each = " ".join(f"{value:.3f}" for value in summary["latent_r2"])
        found.append(Row("R² of the true latents", f"      {each}"))
    return found


# --- figures


def draw(
    folder: Path, measures: Measures, truth: dict[str, np.ndarray] | None, title: str
) -> list[Path]:
    """Rasters beside rates, and latents over the steps; nothing where they were not measured."""
    found = measures.arrays.get("spikes")
    if found is None:
        return []
    shown = range(min(len(found["counts"]), MAX_SHOWN))
    names = [f"trial {number}" for number in shown]
    counts = np.where(found["observed"], found["counts"], np.nan)
    true = None if truth is None else truth.get("rates")
    trials = [
        figures.Trial(name, counts[i], found["rates"][i], None if true is None else true[i])
        for i, name in zip(shown, names, strict=True)
    ]
    paths = [
        figures.raster_and_rates(folder / "rates.png", trials, title=f"{title}: spikes and rates")
    ]
    path = np.asarray(found["trajectory"])[: len(names)]
    if path.size:
        paths.append(
            figures.latent_paths(
                folder / "latents.png", names, path[:, 0], path[:, 1], title=f"{title}: latents"
            )
        )
    states = np.asarray(found["states"])
    if states.size:
        true = None
        if truth is not None and "states" in truth:
            true = truth["states"][:, :-1]
            states = spikes.matched_states(states, true)
        drawn = slice(len(names))
        paths.append(
            figures.states_over_time(
                folder / "states.png",
                names,
                states[drawn],
                None if true is None else true[drawn],
                title=f"{title}: states",
            )
        )
    return paths
