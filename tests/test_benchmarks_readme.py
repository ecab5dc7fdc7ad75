"""benchmarks/README.md fits a screen at a time; longer tables are files beside it."""

import csv
import importlib
import re

import pytest
from command_helpers import ROOT

report = pytest.importorskip("benchmarks.report")
models = pytest.importorskip("benchmarks.models")


def lengths(text):
    """{heading of a table of Markdown: its rows}."""
    tables = re.findall(r"((?:^\|.*\n)+)", text, re.M)
    return {table.split("\n")[0]: table.count("\n") - 2 for table in tables}


def test_no_table_has_more_rows_than_a_screen():
    found = lengths(report.README.read_text())
    assert len(found) > 10
    long = {head[:60]: size for head, size in found.items() if size > report.MAX_ROWS}
    assert not long, f"more than {report.MAX_ROWS} rows; put them into benchmarks/results: {long}"


def test_every_file_of_results_is_linked_and_every_link_is_one():
    linked = re.findall(r"\]\(results/(.*?)\)", report.README.read_text())
    assert sorted(linked) == sorted(path.name for path in report.RESULTS.iterdir())
    for name in linked:
        with (report.RESULTS / name).open(newline="") as file:
            (head, *rows) = csv.reader(file)
        assert len(rows) > report.MAX_ROWS, f"{name} is short enough for README.md"
        assert len(set(head)) == len(head), f"two columns of {name} have one name"
        assert {len(row) for row in rows} == {len(head)}


def test_a_long_table_is_written_as_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")
    table = report.LongTable(
        ("what", "`gradients`, all"), [("**a, b**", "1,234.5"), ("> 5", "+1,000,000")]
    )
    path = report.write_csv("some", table)
    with path.open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["what", "gradients, all"],
            ["a, b", "1234.5"],
            ["> 5", "+1000000"],
        ]


def test_every_config_is_a_kind_of_model_of_the_benchmark():
    # of other data than digits, or of their grey levels
    others = ("colour", "diffusion", "disentangle", "sequence", "table", "vq")
    variants = {
        f"{path.stem}:{variant}"
        for path in (ROOT / "configs").glob("*.py")
        if path.stem not in others
        for variant in getattr(importlib.import_module(f"configs.{path.stem}"), "VARIANTS", ())
    }
    assert set(models.ROWS) <= variants
    assert {row.split(":")[0] for row in models.ROWS} == {name.split(":")[0] for name in variants}


def test_the_table_of_models_has_what_was_measured():
    found = {
        "steps": 4000,
        "elbo": {"mean": -22.6, "stderr": 0.19},
        "log_evidence": {"mean": -22.1, "stderr": 0.18},
        "num_importance_samples": 5000,
        "seconds": 61.4,
    }
    text = models.describe({"vae:digits": found})
    assert "| `vae:digits` | a VAE, Kingma & Welling 2013 | 4,000 |" in text
    assert "| -22.60 ± 0.19 | -22.10 ± 0.18 | 61 |" in text
    assert "5,000 importance samples" in text
