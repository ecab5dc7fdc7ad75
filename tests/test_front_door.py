"""What a newcomer sees first: names in prose, formulas, versions, and where a config is sent."""

import re
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
from ml_collections import ConfigDict

from docs.site import pages
from experiments import listing, of_run, rooms
from experiments.errors import UserError
from experiments.run import record
from vi_jax.fitting import Diagnostics, LocalDiagnostics, LocalResult, Result

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(pages.FIGURES.parent.rglob("*.md"))]


def names_of(*kinds):
    """Attributes and fields of some classes."""
    fields = [getattr(kind, "__annotations__", {}) for kind in kinds]
    return {name for kind in kinds for name in dir(kind)}.union(*fields)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_attributes_of_a_result_in_prose_exist(page):
    of_results = names_of(Result, LocalResult)
    of_diagnostics = names_of(Diagnostics, LocalDiagnostics)
    text = page.read_text()
    for name in re.findall(r"\bresult\.([A-Za-z_]\w*)", text):
        assert name in of_results or name == "json", f"{page.name}: result.{name}"
    for name in re.findall(r"\b(?:fit_?\w*|result)\.diagnostics\.(\w+)", text):
        assert name in of_diagnostics, f"{page.name}: diagnostics.{name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_formula_has_a_brace_below(page):
    """Whose label MathML of docutils puts beside it."""
    for formula in pages.formulas(page.read_text()):
        assert "brace{" not in formula, f"{page.name}: {formula}"


def test_log_p_is_spaced_and_log_of_brackets_is_not():
    mathml = pytest.importorskip("docs.site.mathml")
    found = mathml.spaced(mathml.tex2mathml(r"\log p(x) - \log (x)"))
    assert found.count("mspace width") == 1


def test_the_versions_that_are_promised_are_those_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = [re.fullmatch(r".*Python :: (3\.\d+)", each) for each in project["classifiers"]]
    pythons = [match[1] for match in found if match]
    for page in (ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "docs" / "index.md"):
        text = page.read_text()
        assert f"Python {pythons[0]} to {pythons[-1]}" in text, page.name
        oldest = re.search(r"JAX (\d+\.\d+)\.0 to", text)
        assert oldest, page.name
        assert f"jax>={oldest[1]}" in project["dependencies"], page.name


def test_a_training_config_without_an_objective_is_not_sent_to_posteriors():
    config = {"name": "mine", "model": "vae", "data": {"name": "digits"}}
    assert rooms.command_of(config) is None
    assert rooms.command_of({"model": "eight_schools", "data": ""}) == "posterior"


@pytest.mark.parametrize("kinds", [rooms.LISTED_OF_DOCUMENTS, rooms.LISTED_OF_POSTERIORS])
def test_rooms_of_the_other_commands_fit_into_80_columns(kinds):
    for kind, room in kinds.items():
        assert max(map(len, listing.members(room))) <= listing.WIDTH, kind


def test_commands_that_read_runs_of_train_say_whose_a_posterior_is(tmp_path, monkeypatch):
    fields = {"model": "eight_schools", "data": ""}
    monkeypatch.setattr(of_run.cli, "require", lambda name: str(tmp_path))
    monkeypatch.setattr(of_run.flags, "FLAGS", SimpleNamespace(allow_code=""))
    monkeypatch.setattr(record, "read_run", lambda folder, allowed: ConfigDict(fields))
    with pytest.raises(UserError, match=r"a run of experiments\.posterior; .*experiments\.train"):
        of_run.open_run()
