"""The same number of several runs over their steps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.figures.page import DARK_GREY, new_page


def replica_curves(
    path: str | Path, runs: Mapping[str, Sequence[Mapping[str, Any]]], *, key: str, title: str
) -> Path:
    """A curve for each run, its name beside its last point; a run without the number is named as
    such.

    Args:
      runs: name -> the rows of its metrics.jsonl.
      key: of the rows, e.g. `test/elbo`, nats per example.

    Raises:
      ValueError: there are no runs.
    """
    if not runs:
        raise ValueError("figures.replica_curves wants one or more runs.")
    import matplotlib

    colours = matplotlib.colormaps["viridis"](np.linspace(0.0, 0.9, len(runs)))
    with new_page(path, title=title, size=(8.5, 4.2)) as fig:
        ax = fig.add_subplot()
        shown: list[float] = []
        for (name, rows), colour in zip(runs.items(), colours, strict=True):
            points = [
                (row["step"], row[key]) for row in rows if key in row and np.isfinite(row[key])
            ]
            steps, values = zip(*points, strict=True) if points else ((), ())
            ax.plot(
                steps,
                values,
                color=colour,
                linewidth=1.2,
                label=name if points else f"{name} (none)",
            )
            shown += values[len(values) // 4 :]
        if shown:  # the first quarter may lie out of view
            span = max(shown) - min(shown) or 1.0
            ax.set_ylim(min(shown) - 0.05 * span, max(shown) + 0.05 * span)
        ax.set_xlabel("step")
        ax.set_ylabel(f"{key}, nats per example", color=DARK_GREY)
        fig.legend(loc="outside right center", fontsize=8)
    return Path(path)
