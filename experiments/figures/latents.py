"""The latent space: the KL of each dimension, and where the examples lie on the plane."""

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from experiments.figures.page import BLUE, GREY, caption, checked, count, minus, new_page

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TEN = (  # the nearest two are 0.20 apart in OKLab, and 0.09 for colour-blind eyes
    *("#000075", "#E69F00", "#E6194B", "#00C8B4", "#F032E6"),
    *("#7A7A7A", "#800000", "#DCBEFF", "#911EB4", "#000000"),
)


def kl_per_dimension(
    path: str | Path,
    kl: ArrayLike,
    active: ArrayLike,
    *,
    title: str,
    prior_label: str = "standard normal",
) -> Path:
    """Bars of the mean KL [D] of each latent dimension in nats, the largest first; `active` [D] is
    a mask.
    """
    kl = checked("kl_per_dimension", "kl", kl, "[D]", (1,))
    active = np.asarray(active)
    if active.shape != kl.shape or active.dtype != bool:
        raise ValueError(
            f"figures.kl_per_dimension wants active, a mask of shape {kl.shape}; got "
            f"{active.dtype} of {active.shape}."
        )
    from matplotlib.patches import Patch

    order = np.argsort(-kl, kind="stable")
    num = len(kl)
    title = f"{title}\nsum {minus(f'{kl.sum():.2f}')} nats over {count(num, 'latent dimension')}"
    handles = []
    with new_page(path, title=title, size=(8, 4.2)) as fig:
        ax = fig.add_subplot()
        for mask, name, colour in ((active, "active", BLUE), (~active, "inactive", GREY)):
            at = np.flatnonzero(mask[order])
            if name == "inactive" and not len(at):
                continue
            ax.bar(at, kl[order][at], width=0.8 if num <= 100 else 1.0, color=colour, linewidth=0)
            handles.append(Patch(color=colour, label=f"{name}: {len(at)} of {num}"))
        if num <= 30:
            ax.set_xticks(range(num), [str(i) for i in order])
            ax.set_xlabel("latent dimension (its index), sorted by KL")
        else:
            ax.locator_params(axis="x", integer=True)
            ax.set_xlabel("rank of the latent dimension by KL")
        pad = 1.5 if num < 4 else 0.6 + 0.008 * num
        ax.set_xlim(-pad, num - 1 + pad)
        ax.axhline(0, color="black", linewidth=0.8)
        ax.yaxis.grid(True)
        ax.set_ylabel(
            textwrap.fill(f"mean KL to the {prior_label} prior (nats)", 46), parse_math=False
        )
        fig.legend(handles=handles, loc="outside lower center", ncols=2)
    return Path(path)


def pca_2d(means: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """The first two principal components, [N, 2], of means [N, D], and the fraction of the variance
    in each, [2].

    The largest loading of each component is positive, so that two runs of one model draw one
    picture. One dimension comes back with a second column of zeros.
    """
    means = checked("pca_2d", "means", means, "[N, D]", (2,))
    if len(means) < 2:
        raise ValueError(
            f"figures.pca_2d wants means of two examples or more, [N, D]; got {means.shape}."
        )
    u, s, vt = np.linalg.svd(means - means.mean(0), full_matrices=False)
    sign = np.where(vt[np.arange(len(vt)), np.abs(vt).argmax(1)] < 0, -1.0, 1.0)
    points = u * s * sign
    fraction = s**2 / max((s**2).sum(), np.finfo(float).tiny)
    missing = max(0, 2 - len(s))
    return np.pad(points, ((0, 0), (0, missing)))[:, :2], np.pad(fraction, (0, missing))[:2]


def latent_plane(
    path: str | Path,
    points: ArrayLike,
    labels: ArrayLike | None,
    *,
    title: str,
    xlabel: str,
    ylabel: str,
) -> Path:
    """Points [N, 2] of the latent plane, coloured by whole-number labels [N] (None: one colour)."""
    points = checked("latent_plane", "points", points, "[N, 2]", (2,))
    if points.shape[1] != 2:
        raise ValueError(
            f"figures.latent_plane wants points of shape [N, 2]; got {points.shape}. pca_2d "
            "makes them."
        )
    dots: dict[str, Any] = (
        {"s": 5, "alpha": 0.35} if len(points) > 5000 else {"s": 16, "alpha": 0.8}
    )
    with new_page(path, title=title, size=(7.5, 6.3)) as fig:
        ax = fig.add_subplot()
        if labels is None:
            ax.scatter(points[:, 0], points[:, 1], c=BLUE, linewidths=0, **dots)
        else:
            _coloured_points(fig, ax, points, _whole_numbers(labels, len(points)), dots)
        ax.set_aspect("equal", adjustable="datalim")
        ax.grid(True)
        ax.set_xlabel(textwrap.fill(xlabel, 70), parse_math=False)
        ax.set_ylabel(textwrap.fill(ylabel, 60), parse_math=False)
        caption(fig, count(len(points), "point") + _alike(labels))
    return Path(path)


def _alike(labels: ArrayLike | None) -> str:
    """Says where there are more labels than colours."""
    num = 0 if labels is None else len(np.unique(labels))
    if num <= len(TEN):
        return ""
    return f"; {num} labels on one scale of colours: neighbouring numbers look alike"


def _whole_numbers(labels: ArrayLike, num: int) -> np.ndarray:
    labels = np.asarray(labels)
    if (
        labels.shape != (num,)
        or not np.issubdtype(labels.dtype, np.number)
        or np.any(labels != np.round(labels))
    ):
        raise ValueError(
            f"figures.latent_plane wants whole labels [{num}] or None; got {labels.dtype} "
            f"{labels.shape}."
        )
    return labels.astype(int)


def _coloured_points(
    fig: "Figure", ax: "Axes", points: np.ndarray, labels: np.ndarray, dots: dict[str, Any]
) -> None:
    """A legend and a name at the median of each class for ten classes or fewer, a colour bar for
    more.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.patheffects import withStroke
    from matplotlib.ticker import MaxNLocator

    classes, index = np.unique(labels, return_inverse=True)
    if len(classes) > len(TEN):
        drawn = ax.scatter(
            points[:, 0], points[:, 1], c=labels, cmap="viridis", linewidths=0, **dots
        )
        full = ScalarMappable(drawn.norm, drawn.cmap)  # without the dots' alpha
        fig.colorbar(full, ax=ax, label="label", ticks=MaxNLocator(integer=True))
        return
    ax.scatter(points[:, 0], points[:, 1], c=np.array(TEN)[index], linewidths=0, **dots)
    outline = [withStroke(linewidth=3, foreground="white")]
    for k, name in enumerate(classes):
        x, y = np.median(points[index == k], axis=0)
        ax.scatter([], [], s=36, color=TEN[k], label=f"{name} ({(index == k).sum():,})")
        ax.text(
            x,
            y,
            str(name),
            fontsize=12,
            fontweight="bold",
            ha="center",
            va="center",
            path_effects=outline,
        )
    fig.legend(loc="outside right center", title="label (points)")
