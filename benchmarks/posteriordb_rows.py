"""Rows of the benchmarks on posteriordb: errors against reference moments, and which posteriors."""

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

NUM_DRAWS = 4000
T = TypeVar("T")


class Row(NamedTuple):
    """One method on one posterior."""

    posterior: str
    method: str
    mean_error: float  # worst |mean - reference| / reference SD
    sd_error: float  # worst |SD / reference SD - 1|
    guide_mean_error: float  # the same of the guide's own draws, uncorrected
    guide_sd_error: float
    k_hat: float
    evaluations: int
    seconds: float  # compile included
    compile_seconds: float
    word: str  # verdict; 'slower' or 'reached' of a peer that runs to an error
    elbo: float


def errors(posterior: Any, sites: Any, log_weights: Any = None) -> tuple[float, float]:
    """Worst mean error in reference SDs and worst relative SD error of (weighted) samples."""
    x = np.asarray(posterior.flatten(sites), np.float64)
    w = np.full(len(x), 1 / len(x))
    if log_weights is not None:
        w = np.exp(np.asarray(log_weights, np.float64))
    mean = w @ x
    sd = np.sqrt(w @ (x - mean) ** 2)
    known = np.isfinite(posterior.sd)
    return (
        float(np.max(np.abs(mean - posterior.mean)[known] / posterior.sd[known])),
        float(np.max(np.abs(sd / posterior.sd - 1)[known])),
    )


def row_of_peer(
    posterior: Any,
    method: str,
    sites: Any,
    *,
    evaluations: int,
    seconds: float,
    word: str = "",
) -> Row:
    """The row of a peer, of which samples alone are known."""
    found = errors(posterior, sites)
    return Row(
        posterior.name,
        method,
        *found,
        *found,
        np.nan,
        evaluations,
        seconds,
        np.nan,
        word,
        np.nan,
    )


def add_selection(parser: argparse.ArgumentParser) -> None:
    """Flags that choose posteriors, and where rows and tables go."""
    parser.add_argument(
        "--root", default="../shared/data/posteriordb", help="a clone of stan-dev/posteriordb"
    )
    parser.add_argument(
        "--only", default="", help="posteriors whose name holds one of these texts, comma-separated"
    )
    parser.add_argument(
        "--part", default="1/1", help="I/N: the I-th of N slices of them, every N-th posterior"
    )
    parser.add_argument(
        "--rows",
        default="",
        help="such files, comma-separated: nothing runs, tables are made of their rows",
    )


def selected(flags: argparse.Namespace) -> list[str]:
    """Names of the posteriors that the flags choose.

    Raises:
      ValueError: `part` is not I/N with 1 <= I <= N.
    """
    from experiments import posteriordb

    which, _, of = flags.part.partition("/")
    if not (which.isdigit() and of.isdigit() and 1 <= int(which) <= int(of)):
        raise ValueError(f"--part expects I/N with 1 <= I <= N, as in 2/6; got {flags.part!r}.")
    asked = [part for part in flags.only.split(",") if part]
    names = [
        name for name in posteriordb.names() if not asked or any(part in name for part in asked)
    ]
    return names[int(which) - 1 :: int(of)]


def read_rows(paths: str, kind: type[T]) -> list[T]:
    """The rows of comma-separated files that --json wrote."""
    return [kind(**row) for path in paths.split(",") for row in json.loads(Path(path).read_text())]
