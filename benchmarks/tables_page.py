"""The tables of `benchmarks.tables`, as Markdown."""

from collections.abc import Collection
from typing import Any

import numpy as np

from benchmarks import report

DENSITY_HEAD = ("log p(x) of a test row, nats", "ours", "factor analysis", "Gaussian mixture")
IMPUTED_HEAD = (
    "imputation",
    "ours, RMSE",
    "90 % intervals cover",
    "the model's own",
    "mean",
    "10 nearest neighbours",
    "iterative",
)
COUNT_HEAD = ("counts", "log p(x) of a test row, nats", "zeros, samples", "zeros, data")


def _with_error(found: dict[str, float]) -> str:
    return f"{found['mean']:.2f} ± {found['stderr']:.2f}"


def describe(results: dict[str, Any], *, with_peers: Collection[str], note: str) -> str:
    """The tables of what was run, and the note; `with_peers` are the densities that have peers."""
    densities = []
    imputed = []
    counted = []
    for name, found in results.items():
        if name == "linear":
            truth = f"the truth's own {_with_error(found['truth'])}"
            densities.append([f"linear data, {truth}", _with_error(found["ours"]), "", ""])
        elif name in with_peers:
            densities.extend(_density_rows(name, found))
        elif name == "counts":
            counted.extend(_count_rows(found))
        else:
            imputed.append(_imputed_row(name, found))
    tables = [
        report.markdown_table(head, rows)
        for head, rows in (
            (DENSITY_HEAD, densities),
            (IMPUTED_HEAD, imputed),
            (COUNT_HEAD, counted),
        )
        if rows
    ]
    return "\n\n".join([*tables, _note(results, note)])


def _density_rows(name: str, found: dict[str, Any]) -> list[list[str]]:
    rows = []
    for label, peers in (
        (f"{name}, {found['size']}", found["peers"]),
        (f"{name}, peers on logarithms too", found["peers on logarithms"]),
    ):
        rows.append([label, _with_error(found["ours"]), *map(_with_error, peers.values())])
    return rows


def _imputed_row(name: str, found: dict[str, Any]) -> list[str]:
    return [
        name,
        f"**{np.mean(found['seeds']):.3f}** ({min(found['seeds']):.3f}..{max(found['seeds']):.3f})",
        _range(found["covered"]),
        _range(found["covered by the model's own"]),
        *(f"{error:.3f}" for error in found["peers"].values()),
    ]


def _range(shares: Collection[float]) -> str:
    return f"{100 * min(shares):.1f}..{100 * max(shares):.1f} %"


def _count_rows(found: dict[str, Any]) -> list[list[str]]:
    rows = []
    for kind in ("poisson", "negative_binomial"):
        zeros = f"{100 * np.mean(found[kind]['zeros']):.2f} %"
        label = f"{kind}, {found['size']}"
        log_p = _with_error(found[kind]["ours"])
        rows.append([label, log_p, zeros, f"{100 * found['zeros']:.2f} %"])
    difference = _with_error(found["difference"])
    rows.append(["negative binomial less Poisson, row by row", difference, "", ""])
    return rows


def _note(results: dict[str, Any], note: str) -> str:
    shares = {
        name: found["share of k-hat above 0.7"]
        for name, found in results.items()
        if "share of k-hat above 0.7" in found
    }
    if "counts" in results:
        for kind in ("poisson", "negative_binomial"):
            shares[kind] = results["counts"][kind]["share of k-hat above 0.7"]
    listed = ", ".join(f"{name} {100 * share:.1f} %" for name, share in shares.items())
    return f"{note}: {listed or 'none'}. {report.used('jax', 'scikit-learn', 'numpyro', 'optax')}"
