"""Spike trains: what is asked of the models of latent dynamics, and what is measured.

    python -m benchmarks.neural --list
    python -m benchmarks.neural --only=plds,trust --data_dir=DIR --write
    python -m benchmarks.neural --data_dir=DIR --write               # all rows; minutes each

DIR has lorenz_spikes.npz (L1: test conditions that are trained on; L2: new ones). Rows that are not
asked for keep what was measured before, in benchmarks/neural_measured.json. Runs are in --folder,
and a finished one is not trained again. Numbers are those of test trials, on which nothing is
chosen; seconds are of the processor, compilation included.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import neural_rows, report

MEASURED = Path(__file__).with_name("neural_measured.json")
BLOCK_NAME = "neural"


class Row(NamedTuple):
    """One line of the table."""

    what: str
    asked: str
    command: str  # what the numbers are of
    measure: Callable[[neural_rows.Place], dict[str, Any]]
    told: Callable[[dict[str, Any]], str]


ROWS = {
    "plds": Row(
        "Poisson LDS on L1: R² of rates; of latents; co-smoothing",
        "≥ .885; ≥ .954 .940 .867; ≥ .488; in ≤ 30 s",
        f"experiments.train {' '.join(neural_rows.PLDS)}",
        neural_rows.plds,
        neural_rows.told_of_rates,
    ),
    "plds_new": Row(
        "the same on L2",
        "≥ .876; ≥ .952 .937 .878; ≥ .528",
        f"experiments.train {' '.join(neural_rows.PLDS_NEW)}",
        neural_rows.plds_new,
        neural_rows.told_of_rates,
    ),
    "trust": Row(
        "trust, the Poisson LDS on L1's test trials: k-hat < .7; evidence above the ELBO",
        "all; ≤ .1 nat; in ≤ 60 s",
        "experiments.evaluate --workdir=RUN --num_samples=200",
        neural_rows.trust,
        neural_rows.told_of_trust,
    ),
    "slds": Row(
        "switching LDS, three rotations, 50 neurons, the best ELBO of 16 starts: states",
        "≥ 95 %; in ≤ 60 s",
        f"experiments.train {' '.join(neural_rows.SLDS)}",
        neural_rows.slds,
        neural_rows.told_of_states,
    ),
    "calibration": Row(
        "calibration of a Poisson LDS, 500 simulated trials: least p of uniform ranks; coverage of "
        "90 % bands",
        "> .01 / 40; .88 to .92",
        "benchmarks.neural --only=calibration",
        neural_rows.calibration,
        neural_rows.told_of_calibration,
    ),
    "speed": Row(
        "a trial and EM iteration of 100 bins, 30 neurons, 3 latents",
        "≤ 5 ms (ssm: some 500)",
        "benchmarks.neural --only=speed",
        neural_rows.speed,
        neural_rows.told_of_speed,
    ),
}


def read_flags() -> argparse.Namespace:
    """The flags; the rows there are, where one is not."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--only", default=",".join(ROWS), help="rows, by commas")
    parser.add_argument("--folder", default="runs/neural", help="of the run folders")
    parser.add_argument("--data_dir", default="", help="of lorenz_spikes.npz")
    parser.add_argument("--list", action="store_true", help="the rows there are")
    parser.add_argument("--write", action="store_true", help="into README.md")
    flags = parser.parse_args()
    unknown = set(flags.only.split(",")) - set(ROWS)
    if unknown:
        parser.error(f"no row {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    return flags


def describe(measured: dict[str, dict[str, Any]]) -> str:
    """The table, Markdown; of the rows that were measured."""
    lines = []
    for name, row in ROWS.items():
        if name in measured:
            found = measured[name]
            seconds = f"{found['cpu_s']:,.0f}"
            lines.append((f"`{name}`", row.what, row.asked, row.told(found), seconds))
    table = report.markdown_table(("row", "what", "asked", "measured", "CPU s"), lines)
    commands = [f"- `{name}`: `python -m {row.command}`" for name, row in ROWS.items()]
    return "\n".join((table, "", *commands))


def main() -> None:
    flags = read_flags()
    if flags.list:
        for name, row in ROWS.items():
            print(f"{name}: {row.what}; asked {row.asked}\n  python -m {row.command}")
        return
    measured = json.loads(MEASURED.read_text()) if MEASURED.exists() else {}
    place = neural_rows.Place(Path(flags.folder).resolve(), flags.data_dir)
    place.folder.mkdir(parents=True, exist_ok=True)
    for name in flags.only.split(","):
        report.say(f"{name}: {ROWS[name].what}")
        measured[name] = ROWS[name].measure(place)
        report.say(f"{name}: {ROWS[name].told(measured[name])}")
        if flags.write:
            report.write_json(str(MEASURED), measured)
            report.write_block(BLOCK_NAME, describe(measured))
    print(describe(measured))


if __name__ == "__main__":
    main()
