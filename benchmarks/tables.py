"""Tables as people bring them: log p(x) of held-out rows and missing values filled in, beside what
scikit-learn has, in one run.

    python -m benchmarks.tables                       # half an hour on 2 cores; digits, most of it
    python -m benchmarks.tables --tasks=wine,counts
    python -m benchmarks.tables --counts=cmu_counts.npz --write

Rows are standardised by the training rows and split 80/20 by seed 0. Ours is
`vi_jax.models.table_vae` with a linear decoder, three seeds; its number of latents and its steps
are chosen by a tenth of the training rows, and nothing by the test rows. The peers' numbers are the
best on the test rows.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import (
    report,
    tables_data,
    tables_fit,
    tables_intervals,
    tables_page,
    tables_peers,
)
from benchmarks.tables_best import Fitted, fit_best, fit_folds
from benchmarks.tables_choices import (
    COUNTED,
    DENSITIES,
    EXACT,
    IMPUTED,
    K_HAT,
    LINEAR,
    NUM_DRAWS,
    NUM_EVIDENCE,
    SEEDS,
    SHARES,
    Candidate,
)
from benchmarks.tables_model import Shape


def evidence(fitted: Fitted, rows: np.ndarray, log_jacobian: Any = 0.0) -> dict[str, Any]:
    """log p(x) of test rows: the mean over seeds, its standard error over rows, and k-hat."""
    log_p, k_hat = tables_fit.log_evidence(
        fitted.model, fitted.found.params, tables_fit.as_rows(rows), NUM_EVIDENCE
    )
    each = np.asarray(log_p, np.float64) + log_jacobian
    mixture = np.logaddexp.reduce(each, axis=0) - np.log(len(each))
    return {
        "seeds": each.mean(axis=1).tolist(),
        "rows": each.mean(axis=0),
        "ours": _moments(each.mean(axis=0)),
        "mixture of the seeds": _moments(mixture),
        "share of k-hat above 0.7": float(np.mean(np.asarray(k_hat) > K_HAT)),
        "candidate": str(fitted.candidate),
    }


def density(name: str) -> dict[str, Any]:
    """log p(x) of the test rows of a set, ours on logarithms, all in standardised units."""
    split = tables_data.load(name)
    of_log = tables_data.logarithm(split)
    train = of_log.forward(split.train)
    test = of_log.forward(split.test)
    log_jacobian = of_log.log_jacobian(split.test)
    fitted = fit_best(train, None, *DENSITIES[name])
    found = evidence(fitted, test, log_jacobian)
    plain = tables_peers.log_density(name, split.train, split.test)
    on_logs = tables_peers.log_density(name, train, test)
    return {
        **_without_rows(found),
        "size": f"{len(train)} + {len(test)} x {train.shape[1]}",
        "peers": {peer: _moments(rows) for peer, rows in plain.items()},
        "peers on logarithms": {
            peer: _moments(rows + log_jacobian) for peer, rows in on_logs.items()
        },
    }


def linear() -> dict[str, Any]:
    """Rows of a factor model that is known: 3 factors, 10 columns, 4,000 rows and 1,000."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(10, 3))
    scale = rng.uniform(0.3, 1.0, size=10)
    x = rng.normal(size=(5000, 3)) @ weights.T + scale * rng.normal(size=(5000, 10))
    covariance = weights @ weights.T + np.diag(scale**2)
    test = x[4000:]
    quadratic = np.einsum("nd,nd->n", test, np.linalg.solve(covariance, test.T).T)
    log_det = np.linalg.slogdet(2 * np.pi * covariance)[1]
    truth = -0.5 * (quadratic + log_det)
    candidate = Candidate(LINEAR._replace(num_latents=3))
    fitted = fit_best(x[:4000], None, EXACT._replace(num_steps=1000), (candidate,))
    found = evidence(fitted, test)
    gap = np.mean(truth) - np.mean(found["seeds"])
    return {**_without_rows(found), "truth": _moments(truth), "gap": float(gap)}


def imputation(name: str, share: float) -> dict[str, Any]:
    """RMSE of missing test values in training SDs, ours by the mean of p(x | what is observed)."""
    split = tables_data.load(name)
    seen_train, seen_test = tables_data.punch(split, share)
    recipe, candidates, is_log = IMPUTED[name]
    train = split.train
    test = split.test
    if is_log:
        of_log = tables_data.logarithm(split, seen_train)
        train = of_log.forward(train)
        test = of_log.forward(test)
    fits = fit_folds(train, seen_train, share, recipe, candidates[share])
    (fitted, _) = fits[0]
    rows = tables_fit.as_rows(test, seen_test)
    draws = tables_fit.impute(fitted.model, fitted.found.params, rows, NUM_DRAWS)
    # no column leaves what was seen of it in training
    seen_values = np.where(seen_train, train, np.nan)
    limits = np.nanmin(seen_values, axis=0), np.nanmax(seen_values, axis=0)
    centres = np.clip(np.asarray(draws.centres, np.float64), *limits)
    if is_log:
        centres = of_log.inverse(centres)
    widening = tables_intervals.calibrate([fold for _, fold in fits], NUM_DRAWS)
    ends = tables_intervals.ends_of(draws.values)
    factors = [one.factor for one in widening]
    covered = tables_intervals.covered(test, ends, ~seen_test, factors)
    by_model = tables_intervals.covered(test, ends, ~seen_test, [1.0] * SEEDS)
    peers = tables_peers.impute(split, seen_train, seen_test)
    means = centres.mean(axis=1)

    def error(filled: np.ndarray) -> float:
        return float(np.sqrt(np.mean((filled - split.test)[~seen_test] ** 2)))

    return {
        "candidate": str(fitted.candidate),
        "seeds": [error(mean) for mean in means],
        "mean of the seeds": error(means.mean(axis=0)),
        "covered": covered,
        "covered by the model's own": by_model,
        "factors": factors,
        "hidden entries": widening[0].num_hidden,
        "folds": len(fits),
        "peers": {peer: error(filled) for peer, filled in peers.items()},
    }


def counts(file: str) -> dict[str, Any]:
    """Poisson and negative binomial factor models of counts [N, D]."""
    x = np.load(file)["spike_counts"].astype(np.float64)
    x = x[np.random.default_rng(0).permutation(len(x))]
    num_train = int(0.8 * len(x))
    train = x[:num_train]
    logs = np.log(train + 0.5)
    result: dict[str, Any] = {"zeros": float(np.mean(x == 0)), "size": f"{len(x)} x {x.shape[1]}"}
    rows = {}
    for kind in ("poisson", "negative_binomial"):
        candidate = Candidate(Shape(10, kind))
        centred = logs - logs.mean(axis=0)
        fitted = fit_best(
            train, None, COUNTED, (candidate,), bias=np.log(train.mean(axis=0)), centred=centred
        )
        found = evidence(fitted, x[num_train:])
        rows[kind] = found["rows"]
        result[kind] = {**_without_rows(found), "zeros": share_of_zeros(fitted)}
    result["difference"] = _moments(rows["negative_binomial"] - rows["poisson"])
    return result


def share_of_zeros(fitted: Fitted, num_rows: int = 5000) -> list[float]:
    """Of samples from the prior, for each seed."""

    def one(params: Any, key: Any) -> Any:
        own = jax.tree.map(lambda leaf: leaf[0], params["parts"])
        return fitted.model.generate(key, own, None).sample(jax.random.fold_in(key, 1))["values"]

    keys = jax.random.split(jax.random.key(9), num_rows)
    sample = jax.jit(lambda params: (jax.vmap(one, (None, 0))(params, keys) == 0).mean())
    return [float(share) for share in jax.lax.map(sample, fitted.found.params)]


def _moments(rows: np.ndarray) -> dict[str, float]:
    return {"mean": float(rows.mean()), "stderr": float(rows.std() / np.sqrt(len(rows)))}


def _without_rows(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name != "rows"}


def tasks(counts_file: str | None) -> dict[str, Callable[[], dict[str, Any]]]:
    """What there is to run, by name."""
    found: dict[str, Callable[[], dict[str, Any]]] = {
        name: lambda name=name: density(name) for name in DENSITIES
    }
    found["linear"] = linear
    for name in IMPUTED:
        for share in SHARES:
            label = f"{name} {round(100 * share)} % missing"
            found[label] = lambda name=name, share=share: imputation(name, share)
    if counts_file:
        found["counts"] = lambda: counts(counts_file)
    return found


def read_flags() -> argparse.Namespace:
    """The flags."""
    parser = report.make_parser(__doc__.split("\n\n")[0])
    parser.add_argument("--tasks", help="beginnings of their names, by commas; all if not given")
    parser.add_argument("--counts", help="an npz whose spike_counts are [N, D]")
    parser.add_argument("--keep", help="a folder: results of tasks that are there are read")
    return parser.parse_args()


def note() -> str:
    """What the numbers are, up to the shares of rows whose k-hat is high."""
    return (
        f"Means over {SEEDS} seeds, ± the standard error over test rows; log p(x) by "
        f"{NUM_EVIDENCE:,} importance samples, rows of k-hat above {K_HAT}"
    )


def main() -> None:
    flags = read_flags()
    wanted = tuple(flags.tasks.split(",")) if flags.tasks else ("",)
    results = {}
    for name, run in tasks(flags.counts).items():
        if not name.startswith(wanted):
            continue
        report.say(name)
        began = time.perf_counter()
        results[name] = _kept(flags.keep, name, run)
        report.say(f"  {results[name]}, {time.perf_counter() - began:.0f} s")
    report.finish(
        "tables", tables_page.describe(results, with_peers=DENSITIES, note=note()), flags, results
    )


def _kept(folder: str | None, name: str, run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    if folder is None:
        return run()
    path = Path(folder) / f"{name.replace(' ', '_')}.json"
    if path.exists():
        return json.loads(path.read_text())
    path.parent.mkdir(parents=True, exist_ok=True)
    found = run()
    report.write_json(str(path), found)
    return found


if __name__ == "__main__":
    main()
