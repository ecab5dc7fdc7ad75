"""The gallery of docs/: one picture, one command and one number for every config.

    python -m benchmarks.gallery            # what is there, of runs/gallery
    python -m benchmarks.gallery --train    # runs what is missing there, one after the other
    python -m benchmarks.gallery --write    # and writes docs/gallery.md and its pictures
    python -m benchmarks.gallery --train --write --only=vae,iwae

Each entry is the config as it stands, its first variant, run by its command. A run folder that is
there is read rather than made again; a config that has none keeps what the page says of it, or says
that it was not run.
"""

import argparse
import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import report

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "gallery.md"
PICTURES = ROOT / "docs" / "gallery"
MAX_WIDTH = 720  # pixels of a picture
MAX_BYTES = 150_000
COLOURS = 64  # of its palette
NOT_SHOWN = ("base", "replay", "file", "posteriordb")  # no config of one experiment
NEEDS_FILES = ("mnist", "frey")  # variants whose data are not carried along
# whose runs are of an earlier version of the code than this page's, and are to be made again
EARLIER: tuple[str, ...] = ()
# the picture of a run folder: the first of these that it has
CHOICE = (
    "rates.png",
    "sequences.png",
    "imputations.png",
    "traversal.png",
    "topics.png",
    "words.png",
    "pairs.png",
    "samples.png",
    "reconstructions.png",
    "latent_plane.png",
)


class Entry(NamedTuple):
    """A config of the gallery."""

    name: str
    config: str  # path within the repository
    module: str  # whose command runs it
    what: str  # the first sentence of its docstring
    variants: tuple[str, ...]

    @property
    def command(self) -> str:
        return f"python -m {self.module} --config={self.config}"


def entries() -> list[Entry]:
    """An entry for every config, by room and name."""
    paths = [*(ROOT / "configs").glob("*.py"), *(ROOT / "configs").glob("*/*.py")]
    shown = [path for path in sorted(paths) if path.stem not in (*NOT_SHOWN, "__init__")]
    return [_entry(path) for path in shown]


def _entry(path: Path) -> Entry:
    tree = ast.parse(path.read_text())
    text = " ".join((ast.get_docstring(tree) or "").split("\n\n")[0].split())
    modules = {"topics": "experiments.documents", "posterior": "experiments.posterior"}
    module = modules.get(path.parent.name, "experiments.train")
    return Entry(
        path.stem, path.relative_to(ROOT).as_posix(), module, text, _variants(path.read_text())
    )


def _variants(source: str) -> tuple[str, ...]:
    """The strings of VARIANTS, where it is a plain tuple of them."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "VARIANTS":
            elements = getattr(node.value, "elts", [])
            return tuple(each.value for each in elements if isinstance(each, ast.Constant))
    return ()


def read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}


def best(folder: Path) -> Path:
    """The folder of a run, or of several in one program that of the lowest training loss."""
    if not (folder / "replicas.json").exists():
        return folder
    return min(sorted(folder.glob("replica_*")), key=_last_loss)


def _last_loss(folder: Path) -> float:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = [row["train/loss"] for row in rows if "train/loss" in row]
    return losses[-1] if losses else float("inf")


def number(folder: Path) -> str:
    """What the run reached, in a sentence; empty where it has not ended."""
    folder = best(folder)
    fitted = read_json(folder / "result.json")
    if fitted:
        return _of_posterior(fitted)
    summary = read_json(folder / "summary.json")
    if "completion" in summary:
        return _of_documents(summary)
    for name, what in (("log_evidence", "log p(x) of a test example"), ("elbo", "test ELBO")):
        if name in summary:
            found = summary[name]
            return f"{what} {found['mean']:.2f} ± {found['stderr']:.2f} nats"
    return ""


def _of_posterior(fitted: dict[str, Any]) -> str:
    gradients = f"{fitted['evaluations']:,} gradients"
    return f"{fitted['verdict']}, k-hat {fitted['k_hat']:.2f}, {gradients}"


def _of_documents(summary: dict[str, Any]) -> str:
    found = summary["completion"]
    perplexity = f"{found['ppl_tok']:.0f} ± {found['ppl_tok_stderr']:.0f}"
    return f"completion perplexity {perplexity} by tokens, diversity {summary['diversity']:.2f}"


def picture(folder: Path) -> Path | None:
    """The figure that stands for a run."""
    chosen = best(folder)
    figures = chosen / ("figures" if chosen == folder else "samples")
    for name in CHOICE:
        if (figures / name).exists():
            return figures / name
    return next(iter(sorted(figures.glob("*.png"))), None)


def shrink(source: Path, target: Path) -> None:
    """A small PNG of a picture."""
    from PIL import Image

    image = Image.open(source).convert("RGB")
    width = MAX_WIDTH
    while True:
        image.thumbnail((width, width))
        image.quantize(COLOURS).save(target, optimize=True)
        if target.stat().st_size < MAX_BYTES:
            return
        width = width * 9 // 10


def train(entry: Entry, folder: Path) -> None:
    """Runs an entry's command in a process of its own.

    Raises:
      CalledProcessError: it failed.
    """
    command = [sys.executable, *entry.command.split()[1:], f"--workdir={folder}"]
    subprocess.run(command, check=True)
    if best(folder) != folder:  # whose pictures are made when they are asked for
        sample = [sys.executable, "-m", "experiments.sample", f"--workdir={best(folder)}"]
        subprocess.run(sample, check=True)


NOT_RUN = "Not run for this page yet."


def said(entry: Entry, reached: str, page: str) -> str:
    """The line of what a run reached, that of the page where there is no run."""
    if reached:
        version = " (a run of an earlier version)" if entry.name in EARLIER else ""
        return f"**{reached[0].upper()}{reached[1:]}.**{version}"
    (_, _, section) = page.partition(f"\n### {entry.name}\n")
    (section, _, _) = section.partition("\n### ")
    numbers = [line for line in section.splitlines() if line.startswith("**")]
    return numbers[0] if numbers else NOT_RUN


def describe(entry: Entry, line: str, shown: str) -> str:
    """The Markdown of an entry."""
    lines = [f"### {entry.name}", "", entry.what, ""]
    lines += ["```sh", entry.command, "```", "", line, ""]
    if shown:
        lines += [f"![{entry.name}: a figure of the run]({shown})", ""]
    others = [f"`{name}`" for name in entry.variants[1:] if not name.startswith(NEEDS_FILES)]
    files = [f"`{name}`" for name in entry.variants if name.startswith(NEEDS_FILES)]
    if others:
        lines += [f"Variants: {', '.join(others)}.", ""]
    if files:
        lines += [f"With files of yours (`--config.data.data_dir=DIR`): {', '.join(files)}.", ""]
    return "\n".join(lines)


def write(folder: Path) -> None:
    """The page and its pictures, from the run folders in `folder`."""
    PICTURES.mkdir(exist_ok=True)
    page = PAGE.read_text()
    parts = []
    for entry in entries():
        run = folder / entry.name
        reached = number(run)
        shown = ""
        found = picture(run) if reached else None
        target = PICTURES / f"{entry.name}.png"
        if found is not None:
            shrink(found, target)
        if target.exists():
            shown = f"gallery/{target.name}"
        parts.append(describe(entry, said(entry, reached, page), shown))
    report.write_block("gallery", "\n".join(parts), PAGE)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--folder", default="runs/gallery", help="the run folders, by config")
    parser.add_argument("--train", action="store_true", help="run what is missing")
    parser.add_argument("--write", action="store_true", help="write docs/gallery.md")
    parser.add_argument("--only", default="", help="configs to run, by commas; all if not set")
    flags = parser.parse_args()
    folder = Path(flags.folder)
    only = flags.only.split(",") if flags.only else [entry.name for entry in entries()]
    if unknown := set(only) - {entry.name for entry in entries()}:
        parser.error(f"no config of the gallery: {', '.join(sorted(unknown))}")
    for entry in entries():
        if entry.name not in only:
            continue
        run = folder / entry.name
        if flags.train and not number(run):
            train(entry, run)
        print(f"{entry.config:36} {number(run) or 'not run'}")
    if flags.write:
        write(folder)


if __name__ == "__main__":
    main()
