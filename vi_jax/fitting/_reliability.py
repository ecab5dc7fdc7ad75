"""The rows of a Result's table, and what makes an answer unreliable whatever its weights: nan,
skipped steps, lost digits, other modes.
"""

from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
import numpy as np

MIN_SEPARATION = 4.0  # standard deviations between the means of two modes
MAX_EXPLAINED = 20  # samples of no weight whose site is looked up
MAX_SPACING = 0.03  # standard deviations between neighbouring floats
MAX_ELBO_GAP = 4.6  # nats below the best ELBO at which a mode has about a hundredth of the mass
LOW = -10.0  # nats of a weight over the mean one, below which a sample counts for next to nothing
MAX_LOW_SHARE = 0.01  # of the samples; more of them are no few
MIN_ELBO_STDERR = 0.1  # nats, of an ELBO that few samples of no weight may rule
MAX_SKIPPED_SHARE = 0.5  # of the steps; above it the guide is where it was before them


def starts_row(result: Any) -> str:
    """The ELBOs of the starts, and which of them are in the answer."""
    worst = min(result.starts)
    best = max(result.starts)
    far = max(result.start_distances)
    kept = sum(weight > 0.005 for weight in result.start_weights)
    how = f"stacked, {kept} of weight over 0.5 %"
    if max(result.start_weights) == 1:
        how = "the best is kept"
    return (
        f"{len(result.starts)}: ELBO {worst:,.2f} .. {best:,.2f} nats, means up to {far:.2g} "
        f"SD apart; {how}"
    )


def elbo_row(result: Any) -> str:
    """The ELBO; where a few samples that weigh next to nothing rule it, and so its error, how many
    they are and what it is without them.
    """
    d = result.diagnostics
    said = f"{d.elbo:,.3f} ± {d.elbo_stderr:.3f} nats"
    if not d.trusted or not d.elbo_stderr > MIN_ELBO_STDERR:
        return said
    log_weights = np.asarray(result.weighted.log_weights, np.float64)
    over_mean = log_weights + np.log(len(log_weights))
    is_number = np.isfinite(over_mean)  # no weight at all is that of a nan, told by itself
    is_low = is_number & (over_mean < LOW)
    count = int(is_low.sum())
    if not 0 < count <= MAX_LOW_SHARE * len(log_weights):
        return said
    rest = d.log_evidence + float(over_mean[is_number & ~is_low].mean())
    samples = "sample" if count == 1 else "samples"
    return (
        f"{said}; {rest:,.3f} without {count:,} {samples} of next to no weight, where the "
        "posterior has no mass"
    )


def effective_row(result: Any) -> str:
    """The effective samples of how many, and why not more."""
    d = result.diagnostics
    why = f" ({result.why_draws})" if result.why_draws else ""
    return f"{d.effective:,.0f} of {d.num_draws:,}{why}"


def k_hat_row(d: Any) -> str:
    """k-hat, and whether it is good."""
    limit = f"under {d.k_threshold:.2f} is good; S = {d.num_draws:,}"
    if d.k_hat == -np.inf:
        return f"none: the weights have no tail ({limit})"
    if d.k_hat < d.k_threshold:
        return f"{d.k_hat:.2f}, good ({limit})"
    if d.trusted:
        return f"{d.k_hat:.2f}, over {d.k_threshold:.2f}, but the weights are nearly equal"
    return f"{d.k_hat:.2f}, bad ({limit})"


def evidence_row(d: Any) -> str:
    """The log evidence, and whether to trust it."""
    if not d.trusted:
        return (
            f"{d.log_evidence:,.3f} nats by importance sampling, not to be trusted (nor its "
            f"error of {d.log_evidence_stderr:.3f})"
        )
    return f"{d.log_evidence:,.3f} ± {d.log_evidence_stderr:.3f} nats by importance sampling"


def nan_at(result: Any) -> str:
    """What to do where the log density is not a number at some samples; empty if there are none."""
    num_bad = int(result.weighted.num_bad)
    if not num_bad:
        return ""
    site = nan_site(result)
    where = f" ({site})" if site else ""
    return (
        f"the log density is nan at {num_bad:,} samples of the guide{where}: see "
        "vi.check, which names the line."
    )


def nan_site(result: Any) -> str:
    """The site that is nan at some samples; empty if there are none, or none is known."""
    w = result.weighted
    explain = result.target.explain
    if not int(w.num_bad) or explain is None:
        return ""
    rows = np.flatnonzero(np.asarray(w.log_weights) == -np.inf)  # nan weighs nothing
    sites = [explain(w.u[row]) for row in rows[:MAX_EXPLAINED]]
    return next((text for text in sites if "nan" in text), "")


def stuck(result: Any) -> str:
    """What to do where most steps were skipped; empty if they were not."""
    if not result.skipped > MAX_SKIPPED_SHARE * result.num_steps:
        return ""
    return (
        f"{result.skipped:,} of {result.num_steps:,} steps were not finite and were skipped: the "
        "guide is where it was before "
        "them. Set jax_enable_x64, or take another method; vi.check names lines that are not "
        "finite."
    )


def blurred(result: Any) -> str:
    """What to do where a latent's numbers are too large beside its scale for their digits; empty if
    none is.
    """
    kind = result.weighted.u.dtype
    u = np.asarray(result.weighted.u, np.float64)
    apart = float(jnp.finfo(kind).eps) * np.abs(u).max(0)  # neighbouring numbers there
    sd = u.std(0)
    worst = int(np.argmax(apart / np.maximum(sd, 1e-300)))
    if not apart[worst] > MAX_SPACING * sd[worst]:
        return ""
    return (
        f"{result.names[worst]} is about {u[0, worst]:.3g}, where {kind} has steps of "
        f"{apart[worst]:.1g} beside a standard "
        f"deviation of {sd[worst]:.1g}: centre or scale it, or set jax_enable_x64."
    )


def _seen(result: Any) -> Iterable[tuple[float, float]]:
    """ELBO and distance of each location along the way, in standard deviations of the answer's
    samples.
    """
    if result.elsewhere is None:
        return ()
    u = np.asarray(result.weighted.u, np.float64)
    locations, elbos = result.elsewhere
    distances = np.max(np.abs(locations - u.mean(0)) / np.maximum(u.std(0), 1e-300), axis=1)
    return zip(elbos.tolist(), distances.tolist(), strict=True)


def left_out(result: Any) -> str:
    """What to do where another start ended at another mode, or this one passed one, of some mass
    that the answer has none of; empty if none did.
    """
    best = max(result.starts)
    found = ""
    for elbo, distance, weight in zip(
        result.starts, result.start_distances, result.start_weights, strict=True
    ):
        if (
            weight == 0
            and distance > MIN_SEPARATION
            and elbo > best - MAX_ELBO_GAP
            and max(result.start_weights) == 1
        ):
            found = (
                f"a start ended {distance:.1f} SD from the one that is kept, with an ELBO "
                f"{best - elbo:.1f} nats below it"
            )
    for elbo, distance in _seen(result):
        if distance > MIN_SEPARATION and elbo > best - MAX_ELBO_GAP:
            found = (
                f"one of the paths passed a location {distance:.1f} SD away, with an ELBO "
                f"{best - elbo:.1f} nats below"
            )
    if not found:
        return ""
    more = "more starts, and all of them" if len(result.starts) == 1 else "all starts"
    return (
        f"{found}: both modes have mass, which no k-hat of one of them can see. Take {more}, "
        f"vi.fit(..., num_starts={max(8, len(result.starts))}, combine='stack')."
    )
