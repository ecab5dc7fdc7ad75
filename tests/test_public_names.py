"""Public names: what is written in docs, docstrings and messages can be imported as written."""

import importlib
import re
import sys
from pathlib import Path

import pytest

import vi_jax as vi

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = ROOT / "vi_jax"
ROOMS = sorted(path.stem for path in LIBRARY.iterdir() if re.match(r"[a-z]", path.name))
ROOMS = [name for name in ROOMS if name not in ("draws", "py")]  # `draws` is an old name
# `vi.a.b` or `vi_jax.a.b`, and not a part of a path
WRITTEN = re.compile(r"(?<![\w./])(?:vi|vi_jax)((?:\.[A-Za-z_]\w*)+)(?![\w/])")
OLD = {"draws": ("sampling", "control_variates")}


def texts():
    """{path: text} where public names are written: docs, docstrings, messages, configs."""
    folders = (ROOT, ROOT / "docs", ROOT / "docs" / "tutorials", ROOT / "benchmarks")
    markdown = [path for folder in folders for path in sorted(folder.glob("*.md"))]
    python = [
        path for name in ("vi_jax", "configs") for path in sorted((ROOT / name).rglob("*.py"))
    ]
    return {path.relative_to(ROOT).as_posix(): path.read_text() for path in markdown + python}


def resolve(dotted):
    """The object of a name after `vi`, through attributes and through modules."""
    found = vi
    path = "vi_jax"
    for name in dotted.strip(".").split("."):
        path = f"{path}.{name}"
        try:
            found = getattr(found, name)
        except AttributeError:
            found = importlib.import_module(path)
    return found


def written(text):
    return {match[1] for match in WRITTEN.finditer(text) if not match[1].endswith((".py", ".md"))}


def test_every_name_that_is_written_resolves():
    wrong = []
    for path, text in texts().items():
        for dotted in sorted(written(text)):
            if dotted.split(".")[1] in OLD:
                continue
            try:
                resolve(dotted)
            except (AttributeError, ImportError) as error:
                wrong.append(f"{path}: vi{dotted}: {error}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_is_imported_by_its_name_and_has_what_it_lists(room):
    module = importlib.import_module(f"vi_jax.{room}")
    assert getattr(vi, room) is module
    for name in getattr(module, "__all__", ()):
        imported = {}
        exec(f"from vi_jax.{room} import {name}", imported)
        assert imported[name] is getattr(module, name)


@pytest.mark.parametrize("name", sorted(set(vi.__all__) - {"__version__"}))
def test_every_public_name_is_imported_from_the_top(name):
    imported = {}
    exec(f"from vi_jax import {name}", imported)
    assert imported[name] is getattr(vi, name)


def test_functions_at_the_top_are_those_of_their_rooms():
    assert vi.check is vi.checks.check
    assert vi.kl_divergence is vi.kl.kl_divergence
    assert vi.fit is vi.fitting.fit
    assert vi.make_run is vi.training.make_run
    assert vi.replicas.make_run is not vi.make_run
    assert callable(vi.divergences.renyi_divergence)


@pytest.mark.parametrize("old", sorted(OLD))
def test_an_old_name_works_and_names_the_new_ones(old):
    sys.modules.pop(f"vi_jax.{old}", None)
    vars(vi).pop(old, None)
    with pytest.warns(DeprecationWarning, match=rf"vi_jax\.{old} is now vi_jax\.{OLD[old][0]}"):
        module = getattr(vi, old)
    assert module.antithetic is vi.sampling.antithetic
    assert module.controlled_mean is vi.control_variates.controlled_mean


def test_a_name_that_is_not_there_is_seen():
    assert written("see `vi.bounds.iwae(x)`, vi_jax/a.py and vi.fit.") == {".bounds.iwae", ".fit"}
    with pytest.raises(ImportError):
        resolve(".bounds.nothing")
