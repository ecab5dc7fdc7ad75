"""Spikes: a raster beside the rates that a model finds in it and those that made it; latents over
the steps, with bands; states over the steps.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.figures.columns import SMALL
from experiments.figures.page import BLUE, ORANGE, caption, checked, new_page, some

MOST_TRIALS = 3  # rows of a page
MOST_LATENTS = 6
MOST_STRIPS = 6
TAB_COLOURS = 10  # that tell states apart


class Trial(NamedTuple):
    """One trial of T steps and N neurons."""

    name: str
    counts: np.ndarray  # [T, N], nan where not observed
    rates: np.ndarray  # expected counts of a step, [T, N]
    truth: np.ndarray | None = None  # the true ones, where they are known


def raster_and_rates(path: str | Path, trials: Sequence[Trial], *, title: str) -> Path:
    """Counts, rates, and true rates where they are known, side by side, a row for each trial;
    neurons in the order of the step at which their rate is largest.

    Args:
      path: a PNG.
      trials: of which MOST_TRIALS are drawn, evenly spaced.
      title: of the page.
    """
    if not trials:
        raise ValueError("figures.raster_and_rates needs trials; got none.")
    chosen = [trials[i] for i in some(len(trials), most=MOST_TRIALS)]
    heads = ["spikes", "rates", "true rates"]
    if chosen[0].truth is None:
        heads = heads[:2]
    size = (3.0 * len(heads) + 0.6, 2.0 * len(chosen) + 1.2)
    with new_page(path, title=title, size=size) as fig:
        axes = fig.subplots(len(chosen), len(heads), squeeze=False, sharex=True, sharey=True)
        for row, trial in zip(axes, chosen, strict=True):
            rates = checked("raster_and_rates", "rates", trial.rates, "[T, N]", (2,))
            order = np.argsort(rates.argmax(0), kind="stable")
            shown = [np.sqrt(np.maximum(rates, 0.0))]
            if trial.truth is not None:
                shown.append(np.sqrt(trial.truth))
            largest = max(float(each.max()) for each in shown)
            panels = [np.sqrt(trial.counts), *shown]
            for number, (ax, panel, head) in enumerate(zip(row, panels, heads, strict=True)):
                limit = largest if number else max(1.0, float(np.nanmax(panel)))
                ax.imshow(
                    panel[:, order].T,
                    aspect="auto",
                    interpolation="nearest",
                    cmap="Greys" if number == 0 else "viridis",
                    vmin=0.0,
                    vmax=limit,
                )
                ax.tick_params(labelsize=SMALL, length=2, pad=1.5)
                if ax in axes[0]:
                    ax.set_title(head)
                if ax in axes[-1]:
                    ax.set_xlabel("step", fontsize=SMALL + 1)
            row[0].set_ylabel(f"{trial.name}\nneurons", fontsize=SMALL + 1)
        caption(
            fig,
            "square roots of counts and of rates; neurons ordered by when their rate is largest; "
            "rates and true rates of a trial share a scale",
        )
    return Path(path)


def latent_paths(
    path: str | Path, names: Sequence[str], mean: np.ndarray, sd: np.ndarray, *, title: str
) -> Path:
    """Posterior means of the latents over the steps with bands of 1.64 SD, a row for each trial.

    Args:
      path: a PNG.
      names: of trials, of which MOST_TRIALS are drawn, evenly spaced.
      mean: [n, T, D], of which the first MOST_LATENTS are drawn.
      sd: of the same shape.
      title: of the page.
    """
    mean = checked("latent_paths", "mean", mean, "[n, T, D]", (3,))
    sd = checked("latent_paths", "sd", sd, "[n, T, D]", (3,))
    rows = some(len(mean), most=MOST_TRIALS)
    across = np.arange(min(mean.shape[-1], MOST_LATENTS))
    steps = np.arange(mean.shape[1])
    size = (1.9 * len(across) + 0.8, 1.5 * len(rows) + 1.2)
    with new_page(path, title=title, size=size) as fig:
        axes = fig.subplots(len(rows), len(across), squeeze=False, sharex=True, sharey="col")
        for row, number in zip(axes, rows, strict=True):
            for ax, latent in zip(row, across, strict=True):
                centre = mean[number, :, latent]
                width = 1.64 * sd[number, :, latent]
                ax.fill_between(
                    steps, centre - width, centre + width, color=ORANGE, alpha=0.25, linewidth=0
                )
                ax.plot(steps, centre, color=BLUE, linewidth=1.2)
                ax.tick_params(labelsize=SMALL, length=2, pad=1.5)
                if number == rows[0]:
                    ax.set_title(f"latent {latent + 1}")
                if number == rows[-1]:
                    ax.set_xlabel("step", fontsize=SMALL + 1)
            row[0].set_ylabel(names[number], fontsize=SMALL + 1)
        caption(fig, "line: posterior mean; band: 90 % of the posterior at each step")
    return Path(path)


def states_over_time(
    path: str | Path,
    names: Sequence[str],
    states: np.ndarray,
    truth: np.ndarray | None = None,
    *,
    title: str,
) -> Path:
    """The likeliest state of each step in colours, a strip for each trial, under it that of the
    true states where they are known.

    Args:
      path: a PNG.
      names: of trials, of which MOST_STRIPS are drawn, evenly spaced.
      states: whole numbers from 0, [n, T], under the numbers of the truth.
      truth: of the same shape.
      title: of the page.
    """
    states = checked("states_over_time", "states", states, "[n, T]", (2,))
    rows = some(len(states), most=MOST_STRIPS)
    strips = [("found", states)]
    if truth is not None:
        strips.append(("true", checked("states_over_time", "truth", truth, "[n, T]", (2,))))
    largest = max(int(of.max()) for _, of in strips)
    size = (7.0, 0.35 * len(strips) * len(rows) + 1.2)
    with new_page(path, title=title, size=size) as fig:
        axes = fig.subplots(len(rows), 1, squeeze=False, sharex=True)[:, 0]
        for ax, number in zip(axes, rows, strict=True):
            bands = np.stack([of[number] for _, of in strips])
            ax.imshow(
                bands,
                aspect="auto",
                interpolation="nearest",
                cmap="tab10" if largest < TAB_COLOURS else "turbo",
                vmin=-0.5,
                vmax=max(largest, TAB_COLOURS - 1) + 0.5,
            )
            ax.set_yticks(range(len(strips)), [name for name, _ in strips])
            ax.tick_params(labelsize=SMALL, length=2, pad=1.5)
            ax.set_ylabel(names[number], fontsize=SMALL + 1)
        axes[-1].set_xlabel("step", fontsize=SMALL + 1)
        known = "" if truth is None else "; below it the true ones, matched by their numbers"
        caption(fig, f"the likeliest state of each step, a colour each{known}")
    return Path(path)
