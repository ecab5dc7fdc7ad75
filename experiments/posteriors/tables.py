"""The tables that a fit prints: the moments of each site, and their distance from a reference."""

from typing import Any

import numpy as np


def moments_table(moments: dict[str, Any], most: int = 30) -> str:
    """Site, mean and standard deviation, a row for each number."""
    rows = []
    for name, mean in moments["mean"].items():
        for index in np.ndindex(mean.shape):
            place = f"[{','.join(map(str, index))}]" if index else ""
            rows.append(
                f"  {name + place:<24}{mean[index]:>12.4f} {moments['sd'][name][index]:>12.4f}"
            )
    how = "by importance weights" if moments["corrected"] else "of the guide's own draws"
    more = [f"  ... and {len(rows) - most:,} more in moments.json"] if len(rows) > most else []
    return "\n".join([f"  {'site':<24}{'mean':>12} {'sd':>12}   ({how})", *rows[:most], *more])


def against(reference: Any, sites: dict[str, Any], log_weights: Any) -> str:
    """The worst errors of mean and sd, in standard deviations of the reference samples."""
    x = np.asarray(reference.flatten(sites), float)
    w = np.full(len(x), 1 / len(x)) if log_weights is None else np.exp(log_weights)
    mean = w @ x
    sd = np.sqrt(w @ (x - mean) ** 2)
    off = np.abs(mean - reference.mean) / reference.sd
    ratio = np.abs(sd / reference.sd - 1)
    return (
        f"  against the reference draws: worst mean error {off.max():.3f} sd "
        f"({reference.names[int(off.argmax())]}), "
        f"worst sd error {100 * ratio.max():.1f} % ({reference.names[int(ratio.argmax())]})"
    )
