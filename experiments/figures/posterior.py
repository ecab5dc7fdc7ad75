"""Pictures of an approximate posterior: the method's trace, marginals, pairs, and the tail of the
weights.
"""

from pathlib import Path
from typing import Any

import numpy as np

from experiments.figures.page import BLUE, DARK_GREY, GREEN, GREY, ORANGE, caption, minus, new_page

MOST_MARGINALS = 12
MOST_PAIRS = 5


def draw_all(
    folder: Path, result: Any, sites: dict[str, np.ndarray], weights: np.ndarray, *, title: str
) -> list[Path]:
    """All of them; returns their paths.

    Args:
      folder: where they go.
      result: of `vi.fit`.
      sites: {name: [S, ...]}, draws of the guide in the model's own space.
      weights: [S], which sum to 1: smoothed importance weights, or equal ones where those cannot be
        trusted.
    """
    names, columns = _columns(sites)
    drawn = [trace(folder / "trace.png", result.history, title=f"{title}: {result.method}")]
    drawn.append(
        marginals(folder / "marginals.png", names, columns, weights, title=f"{title}: marginals")
    )
    if len(names) > 1:
        drawn.append(pairs(folder / "pairs.png", names, columns, weights, title=f"{title}: pairs"))
    drawn.append(
        tail(
            folder / "weights.png",
            np.asarray(result.weighted.log_weights),
            result.diagnostics,
            title=f"{title}: importance weights",
        )
    )
    return drawn


def trace(path: Path, history: dict[str, np.ndarray], *, title: str) -> Path:
    """The method's value over gradient evaluations; the first of it may lie below the picture."""
    value = np.asarray(history["value"], float)
    evaluations = np.asarray(history["evaluations"], float)
    good = np.isfinite(value)
    with new_page(path, title=title, size=(6, 3.4)) as fig:
        axes = fig.subplots()
        axes.plot(evaluations[good], value[good], color=BLUE, lw=1)
        if good.sum() > 10:
            late = value[good][len(value[good]) // 3 :]
            low = late.min()
            high = value[good].max()
            axes.set_ylim(low - 0.2 * (high - low) - 1e-3, high + 0.1 * (high - low) + 1e-3)
        axes.set_xlabel("gradient evaluations")
        axes.set_ylabel("ELBO estimate, nats")
        axes.grid(True)
        if good.size and not good.all():
            caption(
                fig,
                f"{(~good).sum():,} steps at which the log density was not finite are left out.",
            )
    return path


def marginals(
    path: Path, names: list[str], columns: np.ndarray, weights: np.ndarray, *, title: str
) -> Path:
    """A histogram of each number, weighted, with its mean and standard deviation."""
    shown = min(len(names), MOST_MARGINALS)
    across = min(4, shown)
    down = -(-shown // across)
    with new_page(path, title=title, size=(2.3 * across + 0.4, 1.9 * down + 0.6)) as fig:
        grid = fig.subplots(down, across, squeeze=False)
        for number, axes in enumerate(grid.flat):
            if number >= shown:
                axes.axis("off")
                continue
            x = columns[:, number]
            mean, sd = _moments(x, weights)
            inside = (np.abs(x - mean) < 5 * sd) | (sd == 0)
            axes.hist(x[inside], bins=40, weights=weights[inside], color=BLUE, alpha=0.75)
            axes.axvline(mean, color=ORANGE, lw=1)
            axes.set_title(names[number], parse_math=False)
            axes.set_yticks([])
            axes.set_xlabel(minus(f"{mean:.3g} ± {sd:.2g}"))
        if len(names) > shown:
            caption(
                fig,
                f"The first {shown} of {len(names):,} numbers. Orange: the mean; below: mean ± "
                "standard deviation.",
            )
        else:
            caption(fig, "Orange: the mean; below: mean ± standard deviation.")
    return path


def pairs(
    path: Path, names: list[str], columns: np.ndarray, weights: np.ndarray, *, title: str
) -> Path:
    """Scatter of each pair of the first few numbers, of draws resampled by their weights."""
    num = min(len(names), MOST_PAIRS)
    rows = np.random.default_rng(0).choice(
        len(columns), size=min(1000, len(columns)), p=weights / weights.sum()
    )
    x = columns[rows]
    with new_page(path, title=title, size=(1.6 * num + 0.6, 1.6 * num + 0.6)) as fig:
        grid = fig.subplots(num, num, squeeze=False)
        for i in range(num):
            for j in range(num):
                axes = grid[i, j]
                if j > i:
                    axes.axis("off")
                elif i == j:
                    axes.hist(x[:, i], bins=30, color=GREY)
                    axes.set_yticks([])
                else:
                    axes.plot(x[:, j], x[:, i], ".", color=BLUE, ms=2, alpha=0.4, mew=0)
                axes.tick_params(labelsize=6, labelbottom=i == num - 1, labelleft=j == 0 and i > 0)
                if i == num - 1:
                    axes.set_xlabel(names[j], parse_math=False)
                if j == 0 and i > 0:
                    axes.set_ylabel(names[i], parse_math=False)
        few = f"; the first {num} of {len(names):,} numbers" if len(names) > num else ""
        caption(fig, f"{len(rows):,} draws resampled by their weights{few}.")
    return path


def tail(path: Path, log_weights: np.ndarray, diagnostics: Any, *, title: str) -> Path:
    """Sorted weights against their rank, both on log axes: a tail of shape k falls with slope
    -k.
    """
    weights = np.sort(np.exp(log_weights))[::-1] * len(log_weights)
    rank = np.arange(1, len(weights) + 1)
    good = weights > 0
    with new_page(path, title=title, size=(5, 3.6)) as fig:
        axes = fig.subplots()
        axes.loglog(rank[good], weights[good], color=BLUE, lw=1.5, label="smoothed weights")
        num = max(5, int(min(0.2 * len(weights), 3 * np.sqrt(len(weights)))))
        if np.isfinite(diagnostics.k_hat):
            line = weights[num - 1] * (rank[:num] / num) ** -max(diagnostics.k_hat, 0.0)
            axes.loglog(
                rank[:num],
                line,
                color=ORANGE,
                lw=1,
                ls="--",
                label=f"slope −k-hat, k-hat = {minus(f'{diagnostics.k_hat:.2f}')}",
            )
            limit = weights[num - 1] * (rank[:num] / num) ** -diagnostics.k_threshold
            axes.loglog(
                rank[:num],
                limit,
                color=GREEN,
                lw=1,
                ls=":",
                label=f"the limit, {diagnostics.k_threshold:.2f}",
            )
        axes.axhline(1.0, color=DARK_GREY, lw=0.5)
        axes.set_xlabel("rank of the draw")
        axes.set_ylabel("weight times the number of draws")
        axes.legend()
        caption(
            fig,
            f"{diagnostics.verdict}; {diagnostics.effective:,.0f} effective draws of "
            f"{diagnostics.num_draws:,}.",
        )
    return path


def _columns(sites: dict[str, np.ndarray]) -> tuple[list[str], np.ndarray]:
    names = []
    columns = []
    for name, value in sorted(
        sites.items(), key=lambda site: site[1][0].size
    ):  # scalars first: they are asked about most
        for index in np.ndindex(value.shape[1:]):
            names.append(name + (f"[{','.join(map(str, index))}]" if index else ""))
            columns.append(value[(slice(None), *index)])
    return names, np.stack(columns, axis=1).astype(float)


def _moments(x: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    mean = float(weights @ x)
    return mean, float(np.sqrt(weights @ (x - mean) ** 2))
