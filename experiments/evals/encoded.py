"""Files of encoded rows: latents.npz and latents.csv as they are computed, scores.csv ranked."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.data.columns import Table
from experiments.evals import evidence
from experiments.evals.csv_file import open_csv, write_csv
from experiments.evals.spool import Spools
from experiments.run import heartbeat
from vi_jax import files


class Latents(NamedTuple):
    """Moments of q(z | x) of some examples, by site, leaves [N, ...]."""

    mean: dict[str, Any]
    sd: dict[str, Any]


class Rows(NamedTuple):
    """Which examples they are: arrays [N]."""

    split: np.ndarray
    row: np.ndarray  # place in the split, from 0
    id: np.ndarray | None  # of the data, where they have ids
    label: np.ndarray | None
    step: np.ndarray | None = None  # of sequences, whose steps are the rows

    def astype(self, like: "Rows") -> "Rows":
        """The same in the types of others, without what those lack."""

        def cast(own: Any, to: Any) -> Any:
            return None if to is None else own.astype(to.dtype)

        return Rows(*map(cast, self, like))


class Scores(NamedTuple):
    """Anomaly scores of some rows."""

    evidence: evidence.Evidence
    minus_log_p: dict[str, np.ndarray]  # by units, [N]


class Block(NamedTuple):
    """Some encoded rows."""

    rows: Rows
    latents: Latents
    scores: Scores | None


def joined(parts: list[Any]) -> Any:
    """The leaves of pytrees of arrays, one after the other."""
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def write_latents(out: Path, blocks: Iterator[Block]) -> tuple[Latents, list[Scores]]:
    """Writes both files of latents as the blocks come; the last of these, and all scores."""
    scores = []
    with Spools(out) as spools, files.writing(out / "latents.csv") as file:
        write = open_csv(file)
        for block in blocks:
            spools.add(_arrays(block))
            write({**_columns(block.rows), **dict(latent_columns(block.latents))})
            if block.scores is not None:
                scores.append(block.scores)
        with heartbeat.phase("writing latents.npz"):
            spools.write_npz(out / "latents.npz")
    return block.latents, scores


def _arrays(block: Block) -> dict[str, np.ndarray]:
    """What latents.npz holds of some rows."""
    arrays = {name: column for name, column in block.rows._asdict().items() if column is not None}
    for name, moments in block.latents._asdict().items():
        arrays |= {f"{name}/{site}": np.asarray(leaf) for site, leaf in moments.items()}
    return arrays


def _columns(rows: Rows) -> dict[str, np.ndarray]:
    """The first columns of a table of rows: the id or, without ids, the place in the split."""
    first = {"row": rows.row} if rows.id is None else {"id": rows.id}
    more = {} if rows.label is None else {"label": rows.label}
    return {**first, "split": rows.split, **more}


def latent_columns(latents: Latents) -> Iterator[tuple[str, np.ndarray]]:
    """`z_0_mean`, `z_0_sd`, ...: each latent of each site."""
    for site, mean in latents.mean.items():
        for index in np.ndindex(mean.shape[1:]):
            name = "_".join([site, *map(str, index)])
            yield f"{name}_mean", mean[(slice(None), *index)]
            yield f"{name}_sd", latents.sd[site][(slice(None), *index)]


def said(latents: Latents) -> str:
    sizes = {site: int(np.prod(leaf.shape[1:])) for site, leaf in latents.mean.items()}
    by_name = ", ".join(f"{size} of {site}" for site, size in sizes.items())
    named = f" ({by_name})" if len(sizes) > 1 else ""
    return f"posterior means and SDs of {sum(sizes.values())} latents{named}"


def minus_log_p(
    log_p: np.ndarray, table: Table | None, observed: np.ndarray | None
) -> dict[str, np.ndarray]:
    """-log p(x) of rows in nats, by the name of its column in scores.csv; the first one ranks.

    Of a table, of which `observed` [N, D] says what is there, first in standard deviations of the
    training rows, which do not depend on the units of columns where rows lack different ones, then
    in the units of the data.
    """
    if table is None or observed is None:
        return {"minus_log_p": -log_p}
    in_data = log_p - table.log_jacobian(observed)
    standard = in_data + table.log_standard(observed)
    return {"minus_log_p": -standard, "minus_log_p_data_units": -in_data}


def write_scores(out: Path, rows: Rows, scores: Scores, num_samples: int) -> None:
    """scores.csv: rows ranked by -log p(x), the most surprising first."""
    found = scores.evidence
    by_units = scores.minus_log_p
    score = by_units["minus_log_p"]
    order = np.argsort(-score, kind="stable")
    numbers = {**by_units, "stderr": found.stderr, "k_hat": found.k_hat}
    columns = {
        "rank": np.arange(1, len(order) + 1),
        **{name: column[order] for name, column in _columns(rows).items()},
        **{name: column[order].astype(np.float32) for name, column in numbers.items()},
    }
    write_csv(out / "scores.csv", columns)
    note = ""
    if num_samples >= evidence.MIN_SAMPLES:
        share = np.mean(found.k_hat < evidence.RELIABLE)
        note = f", k-hat < {evidence.RELIABLE} on {100 * share:.0f} % of rows"
    first = order[0]
    named = ", ".join(f"{name} {column[first]}" for name, column in _columns(rows).items())
    print(
        f"scores.csv: -log p(x) in nats by IWAE K = {num_samples:,}, ranked{note}; first {named} "
        f"with {score[first]:.3f} ± {found.stderr[first]:.3f}"
    )
