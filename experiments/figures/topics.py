"""Pictures of topics: words, a map, correlations, shares of documents, curves, restarts."""

from pathlib import Path
from typing import Any

import numpy as np

from experiments.figures.page import BLUE, GREEN, GREY, ORANGE, caption, new_page

MOST_TOPICS = 24  # on a sheet of words
NUM_WORDS = 8
NUM_DOCS = 40  # whose shares are drawn


def draw_all(folder: Path, name: str, fit: Any, loaded: Any) -> list[Path]:
    """The figures of a fit's topics and shares; those that it has no numbers for are left out."""
    beta = np.asarray(fit.topics_mean, np.float64)
    mass = np.asarray(fit.weights, np.float64)
    mass = mass / mass.sum()
    shares = np.asarray(fit.shares(loaded.train), np.float64)
    words = fit.top_words(loaded.corpus.vocab, NUM_WORDS)
    labels = [f"{topic}: {some[0]}" for topic, some in enumerate(words)]
    paths = [
        topic_sheet(folder / "topics.png", beta, mass, words, title=f"{name}: topics"),
        document_shares(folder / "shares.png", shares, title=f"{name}: shares of documents"),
    ]
    if len(beta) > 2:
        place = topic_map(beta)
        paths.append(
            topic_plane(folder / "topic_map.png", place, mass, labels, title=f"{name}: topic map")
        )
        paths.append(
            topic_correlations(
                folder / "correlations.png", shares, labels, title=f"{name}: topics together"
            )
        )
    if len(fit.starts) > 1:
        paths.append(
            restarts(folder / "restarts.png", fit, labels, title=f"{name}: agreement of starts")
        )
    return paths


def topic_sheet(
    path: Path, beta: np.ndarray, mass: np.ndarray, words: list[list[str]], *, title: str
) -> Path:
    """Bars of the most probable words of each topic, in the order of the topics' mass."""
    order = np.argsort(-mass, kind="stable")[:MOST_TOPICS]
    across = min(4, len(order))
    down = -(-len(order) // across)
    with new_page(path, title=title, size=(2.4 * across + 0.3, 1.75 * down + 0.7)) as fig:
        grid = fig.subplots(down, across, squeeze=False)
        for axes in grid.flat:
            axes.axis("off")
        for axes, topic in zip(grid.flat, order, strict=False):
            axes.axis("on")
            top = np.sort(beta[topic])[::-1][:NUM_WORDS]
            axes.barh(np.arange(len(top)), top, color=BLUE, alpha=0.8)
            axes.set_yticks(np.arange(len(top)), words[topic], fontsize=7, parse_math=False)
            axes.invert_yaxis()
            axes.set_xticks([0, top[0]], ["0", f"{top[0]:.2g}"], fontsize=7)
            axes.set_title(f"topic {topic}, {100 * mass[topic]:.1f} %", fontsize=8)
        left = len(mass) - len(order)
        note = f"; the {len(order)} largest of {len(mass)} topics" if left else ""
        caption(
            fig, f"Probability of a word in the topic, and the topic's share of all tokens{note}."
        )
    return path


def topic_map(beta: np.ndarray) -> np.ndarray:
    """Places [K, 2] by principal coordinates of the topics' Jensen-Shannon distances, as of LDAvis
    (Sievert & Shirley 2014). Negative eigenvalues, of a distance that is not Euclidean, are cut.
    """
    distance = jensen_shannon(beta)
    size = len(beta)
    centring = np.eye(size) - 1.0 / size
    gram = -0.5 * centring @ distance**2 @ centring
    (values, vectors) = np.linalg.eigh(gram)
    return vectors[:, ::-1][:, :2] * np.sqrt(np.maximum(values[::-1][:2], 0.0))


def jensen_shannon(beta: np.ndarray) -> np.ndarray:
    """Distances [K, K]: the root of the Jensen-Shannon divergence, nats."""
    entropy = -np.sum(np.where(beta > 0, beta * np.log(np.maximum(beta, 1e-300)), 0.0), axis=1)
    found = np.zeros((len(beta), len(beta)))
    for row, one in enumerate(beta):
        mean = 0.5 * (one + beta)
        mixed = -np.sum(np.where(mean > 0, mean * np.log(np.maximum(mean, 1e-300)), 0.0), axis=1)
        found[row] = mixed - 0.5 * (entropy[row] + entropy)
    return np.sqrt(np.maximum(0.5 * (found + found.T), 0.0))


def topic_plane(
    path: Path, place: np.ndarray, mass: np.ndarray, labels: list[str], *, title: str
) -> Path:
    """Topics in the plane, the area of a circle its share of the tokens."""
    with new_page(path, title=title, size=(6.5, 5.5)) as fig:
        axes = fig.subplots()
        axes.scatter(
            place[:, 0], place[:, 1], s=6000 * mass, color=BLUE, alpha=0.35, edgecolor=BLUE
        )
        for label, (x, y) in zip(labels, place, strict=True):
            axes.annotate(label, (x, y), ha="center", va="center", fontsize=7, parse_math=False)
        axes.set_aspect("equal", adjustable="datalim")
        axes.margins(0.15)
        axes.set_axis_off()
        caption(
            fig,
            "Principal coordinates of Jensen-Shannon distances; a circle's area is the topic's "
            "share of the tokens, the word its most probable one.",
        )
    return path


def topic_correlations(path: Path, shares: np.ndarray, labels: list[str], *, title: str) -> Path:
    """Correlations of the topics' shares over documents, like topics beside each other."""
    with np.errstate(invalid="ignore"):
        found = np.nan_to_num(np.corrcoef(shares.T))
    note = "Correlation of shares over the training documents; the diagonal is left out."
    return correlation_matrix(path, found, labels, title=title, note=note)


def correlation_matrix(
    path: Path, found: np.ndarray, labels: list[str], *, title: str, note: str
) -> Path:
    """Correlations [K, K], like topics beside each other."""
    order = np.argsort(np.linalg.eigh(found)[1][:, -1], kind="stable")
    size = 3.0 + 0.16 * len(labels)
    with new_page(path, title=title, size=(size + 1.0, size)) as fig:
        axes = fig.subplots()
        away = found[order][:, order] - np.diag(np.diag(found[order][:, order]))
        most = max(float(np.abs(away).max()), 1e-6)
        shown = axes.imshow(away, cmap="RdBu_r", vmin=-most, vmax=most)
        ticks = np.arange(len(order))
        names = [labels[topic] for topic in order]
        axes.set_xticks(ticks, names, rotation=90, fontsize=6, parse_math=False)
        axes.set_yticks(ticks, names, fontsize=6, parse_math=False)
        fig.colorbar(shown, ax=axes, shrink=0.7)
        caption(fig, note)
    return path


def document_shares(path: Path, shares: np.ndarray, *, title: str) -> Path:
    """Shares of some documents, stacked, and how many topics a document has."""
    from matplotlib import colormaps

    rows = shares[np.linspace(0, len(shares) - 1, min(NUM_DOCS, len(shares))).astype(int)]
    rows = rows[np.lexsort((rows.max(1), rows.argmax(1)))]
    positive = np.maximum(shares, 1e-300)
    spread = np.exp(-np.sum(np.where(shares > 0, shares * np.log(positive), 0.0), axis=1))
    with new_page(path, title=title, size=(8.5, 3.4)) as fig:
        (left, right) = fig.subplots(1, 2, width_ratios=(2, 1))
        bottom = np.zeros(len(rows))
        colours = colormaps["tab20"](np.arange(shares.shape[1]) % 20)
        for topic, colour in enumerate(colours):
            left.bar(np.arange(len(rows)), rows[:, topic], 1.0, bottom=bottom, color=colour)
            bottom = bottom + rows[:, topic]
        left.set_xlim(-0.5, len(rows) - 0.5)
        left.set_ylim(0, 1)
        left.set_xticks([])
        left.set_ylabel("share")
        left.set_title(f"{len(rows)} documents, a colour a topic")
        right.hist(spread, bins=40, color=BLUE, alpha=0.8)
        right.set_xlabel("topics of a document")
        right.set_ylabel("documents")
        caption(fig, "Right: the exponential of the entropy of a document's shares.")
    return path


def learning_curves(path: Path, rows: list[dict[str, Any]], *, title: str) -> Path:
    """The bound by sweep, and the perplexity of the held-out documents where it was measured."""
    panels = [
        ("elbo", "ELBO, nats a token", BLUE),
        ("perplexity", "completion perplexity, by tokens", ORANGE),
        ("alpha_sum", "sum of alpha", GREEN),
    ]
    kept = [panel for panel in panels if any(panel[0] in row for row in rows)]
    with new_page(path, title=title, size=(3.1 * len(kept) + 0.4, 2.9)) as fig:
        for axes, (name, label, colour) in zip(
            fig.subplots(1, len(kept), squeeze=False)[0], kept, strict=True
        ):
            points = [(row["sweep"], row[name]) for row in rows if name in row]
            axes.plot(
                *zip(*points, strict=True), color=colour, marker="." if len(points) < 30 else ""
            )
            axes.set_xlabel("sweep")
            axes.set_ylabel(label)
            axes.grid(True)
    return path


def restarts(path: Path, fit: Any, labels: list[str], *, title: str) -> Path:
    """The share of the starts that found each topic, and the bounds of the starts."""
    found = np.asarray(fit.found, float)
    order = np.argsort(-found, kind="stable")
    with new_page(path, title=title, size=(7.5, 0.6 + 0.16 * max(len(found), 12))) as fig:
        (left, right) = fig.subplots(1, 2, width_ratios=(2, 1))
        colours = [BLUE if share > 0.5 else GREY for share in found[order]]
        left.barh(np.arange(len(found)), found[order], color=colours)
        left.set_yticks(
            np.arange(len(found)), [labels[topic] for topic in order], fontsize=6, parse_math=False
        )
        left.invert_yaxis()
        left.set_xlim(0, 1)
        left.set_xlabel("share of the starts that have the topic")
        right.plot(np.sort(np.asarray(fit.starts, float)), ".", color=ORANGE)
        right.set_xlabel("start, in order")
        right.set_ylabel("criterion, nats a token")
        caption(fig, "Blue: in more than half of the starts.")
    return path


def k_hats(path: Path, evidence: Any, lengths: np.ndarray, *, title: str) -> Path:
    """k-hat of the shares of documents, against their lengths and by numbers of documents."""
    with new_page(path, title=title, size=(8.0, 3.2)) as fig:
        (left, right) = fig.subplots(1, 2, width_ratios=(2, 1), sharey=True)
        shown = np.isfinite(evidence.k_hat)
        colours = np.where(evidence.readable, BLUE, ORANGE)[shown]
        left.scatter(lengths[shown], evidence.k_hat[shown], s=8, c=colours, alpha=0.6)
        left.set_xscale("log")
        left.set_xlabel("tokens of a document")
        left.set_ylabel("k-hat of its shares")
        right.hist(evidence.k_hat[shown], bins=30, orientation="horizontal", color=GREY)
        right.set_xlabel("documents")
        for axes in (left, right):
            axes.axhline(evidence.threshold, color=GREEN, linewidth=1)
        caption(
            fig,
            "Blue: their shares can be read, k-hat below the line and Dirichlet(gamma) near their "
            "posterior.",
        )
    return path
