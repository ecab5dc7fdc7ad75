"""metrics.jsonl of a fit by sweeps."""

import json
import math
from pathlib import Path
from typing import Any

import vi_jax as vi
from vi_jax import files


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Rows by sweep; a line that a kill cut short is left out."""
    if not files.kind(path):
        return []
    rows = []
    for line in files.read_text(path).splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def keep_metrics(path: Path, sweeps: int) -> list[dict[str, Any]]:
    """The rows of the first sweeps, the only ones that stay in the file."""
    rows = [row for row in read_metrics(path) if row["sweep"] <= sweeps]
    files.write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
    return rows


def append_metrics(path: Path, progress: vi.topics.Progress, seconds: float) -> None:
    """A line with the numbers of a sweep; `seconds` are those before this process."""
    row = {
        "sweep": progress.sweep,
        "elbo": progress.elbo,
        "perplexity": progress.perplexity,
        "alpha_sum": progress.alpha_sum,
        "topics_used": progress.topics_used,
        "seconds": seconds + progress.seconds,
    }
    plain = {name: value for name, value in row.items() if not math.isnan(value)}
    with files.open_to_append(path) as file:
        file.write(json.dumps(plain) + "\n")
