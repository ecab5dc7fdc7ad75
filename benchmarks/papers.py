"""The papers' numbers beside ours: trains what is missing, evaluates, and rewrites docs/papers.md.

    python -m benchmarks.papers --list
    python -m benchmarks.papers --only=gated_vae --data_dir=DIR --write
    python -m benchmarks.papers --data_dir=DIR --write       # all rows, an hour each on 2 cores

A row that is in --folder already is gone on with, or read where it is finished; one whose config or
code has changed since it was measured is said. What was measured of rows that are not asked for is
kept in benchmarks/papers_measured.json.
"""

import argparse
import json
from pathlib import Path

from benchmarks import papers_page, papers_run, report
from benchmarks.papers_rows import ROWS

MEASURED = Path(__file__).with_name("papers_measured.json")


def read_flags() -> argparse.Namespace:
    """The flags; the rows there are, where one is not."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    on_cpu = ",".join(name for name, row in ROWS.items() if not row.on_gpu)
    parser.add_argument("--only", default=on_cpu, help="rows, by commas; those of a CPU if not set")
    parser.add_argument("--folder", default="runs/papers", help="of the run folders")
    parser.add_argument("--data_dir", default="", help="of the rows' data set")
    parser.add_argument(
        "--list", action="store_true", help="the rows there are, and their commands"
    )
    parser.add_argument("--write", action="store_true", help="rewrite docs/papers.md")
    flags = parser.parse_args()
    unknown = set(flags.only.split(",")) - set(ROWS)
    if unknown:
        parser.error(f"no row {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    return flags


def measure(name: str, place: papers_run.Place, measured: papers_page.Measured) -> None:
    """All seeds of a row, trained and evaluated, into `measured`."""
    row = ROWS[name]
    measured.setdefault(name, {})
    for seed in row.seeds:
        before = measured[name].get(str(seed), {})
        if before.get("sources") == papers_run.fingerprint(row):
            report.say(f"{name}, seed {seed}: nothing has changed since it was measured")
            continue
        report.say(f"{name}, seed {seed}: {row.what}")
        papers_run.train(name, row, seed, place)
        measured[name][str(seed)] = papers_run.read(name, row, seed, place)


def say_rows() -> None:
    """Each row with its command."""
    for name, row in ROWS.items():
        print(f"{name}: {row.what}")
        print(f"  published {row.published} ({row.confidence})")
        flags = " ".join(papers_run.config_flags(row, row.seeds[0], "DIR"))
        print(f"  python -m experiments.train {flags}")


def main() -> None:
    flags = read_flags()
    if flags.list:
        say_rows()
        return
    measured = json.loads(MEASURED.read_text()) if MEASURED.exists() else {}
    place = papers_run.Place(Path(flags.folder).resolve(), flags.data_dir)
    place.folder.mkdir(parents=True, exist_ok=True)
    for name in flags.only.split(","):
        measure(name, place, measured)
        if flags.write:
            report.write_json(str(MEASURED), measured)
            papers_page.write(measured)
    print(papers_page.describe(measured))


if __name__ == "__main__":
    main()
