"""The code in the README and in docs/ runs as it stands, and the commands they name exist."""

import re
import subprocess
from pathlib import Path

import jax
import pytest
import yaml

from docs.site import pages
from experiments import rooms, settings
from experiments.choices import Room
from experiments.data import names

ROOT = Path(__file__).resolve().parents[1]
DOCS = [*sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "tutorials").glob("*.md"))]
PAGES = [ROOT / "README.md", *DOCS]
WITHOUT_CODE = {"comparison", "gallery", "glossary", "questions", "results"}


@pytest.mark.integration
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_run_in_order(page):
    text = page.read_text()
    blocks = pages.python_blocks(text)
    assert blocks or page.stem in WITHOUT_CODE, f"{page.name} shows no code"
    # the key check takes the keys of a scan inside a vmap for used ones (see `no_key_check`)
    checked = "amortised.log_evidence(" not in text
    with jax.debug_key_reuse(checked):
        ran = pages.run(page)
    made = pages.file_names(page, ran.figures)
    shown = [name for name in pages.pictures(text) if name.startswith(f"{page.stem}_")]
    assert made == shown, f"{page.name} shows {shown}, and its code makes {made}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pictures_are_small_files(page):
    for link in re.findall(r"!\[[^\]]*\]\((\S+?)\)", page.read_text()):
        path = page.parent / link
        assert path.exists(), f"{page.name} shows {link}, which is not there"
        assert path.stat().st_size < 150_000, f"{link} is larger than 150 kB"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_shell_and_yaml_blocks_parse(page):
    for block in re.findall(r"```(?:bash|sh)\n(.*?)```", page.read_text(), re.DOTALL):
        done = subprocess.run(
            ["bash", "-n"], input=block, text=True, capture_output=True, check=False
        )
        assert done.returncode == 0, f"{done.stderr} in\n{block}"
    for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL):
        assert all("kind" in document for document in yaml.safe_load_all(block))


def test_readme_opens_with_the_two_commands():
    text = (ROOT / "README.md").read_text()
    commands = re.findall(r"```sh\n(.*?)\n```", text, re.DOTALL)
    assert commands[0] == "pip install -e . && python -m experiments.train --config=configs/vae.py"
    assert commands[1] == "pip install -e '.[test]' && pytest"


def test_the_readme_vae_is_fifteen_lines_and_three_imports():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    block = next(block for block in blocks if "vi.train" in block)
    assert len(block.strip().splitlines()) <= 15
    assert set(re.findall(r"^import (.*)$", block, re.MULTILINE)) == {"jax, optax", "vi_jax as vi"}


def test_the_readme_is_short_and_the_rooms_are_in_the_docs():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 100
    text = (ROOT / "docs" / "configs.md").read_text()
    for name in rooms.ROOMS.by_argument:
        assert f"`{name}`" in text, f"docs/configs.md lacks the room of {name}"


ROOMS_OF_NAMES = {room.kind: room for room in vars(rooms).values() if isinstance(room, Room)}


def names_listed(kind):
    """The names that docs/configs.md lists for a room, by its line under "The names there are"."""
    text = (ROOT / "docs" / "configs.md").read_text()
    lists = text.split("## The names there are")[1].split("\n## ")[0]
    items = re.findall(r"^- ([a-z ]+): (.*\n(?:  .*\n)*)", lists, re.MULTILINE)
    found = [re.findall(r"`(\w+)`", listed) for title, listed in items if title == KINDS[kind]]
    assert len(found) == 1, f"docs/configs.md has no list of {KINDS[kind]}"
    return found[0]


KINDS = {  # of a room: the title of its list
    "model": "models",
    "model of documents": "models of documents",
    "network": "architectures",
    "activation": "activations",
    "likelihood": "likelihoods",
    "family": "guides",
    "prior": "priors",
    "objective": "losses",
    "bound": "bounds",
    "estimator": "gradient estimators",
    "optimiser": "optimisers",
    "schedule": "schedules",
    "method": "methods",
}


@pytest.mark.parametrize("kind", ROOMS_OF_NAMES)
def test_every_name_of_a_room_is_in_the_docs(kind):
    assert names_listed(kind) == list(ROOMS_OF_NAMES[kind].all_names())


@pytest.mark.parametrize("field", settings.CHOICES)
def test_every_value_of_a_field_is_in_the_comments_of_the_base_config(field):
    """`one | two | three` in the comment above the field, or beside it."""
    lines = (ROOT / "configs" / "base.py").read_text().splitlines()
    name = field.split(".")[-1]
    (number,) = [i for i, line in enumerate(lines) if re.match(rf"\s+{name}=\"", line)]
    first = number
    while lines[first - 1].strip().startswith("#"):
        first -= 1
    comment = " ".join(
        line.partition("#")[2].strip() for line in [*lines[first:number], lines[number]]
    )
    said = [part.strip() for part in comment.split("|")]
    assert len(said) == len(settings.CHOICES[field]), comment
    for value, part in zip(settings.CHOICES[field], said, strict=True):
        assert re.search(rf"\b{value}\b", part), f"configs/base.py does not say {value} of {field}"


def test_every_kind_of_data_is_in_the_comments_of_the_base_config():
    text = (ROOT / "configs" / "base.py").read_text()
    (comment,) = re.findall(r"((?: +#.*\n)+) +name=\"digits\"", text)
    said = " ".join(line.strip(" #") for line in comment.splitlines()).split(" | ")
    assert said == names.all_names()


def test_nothing_of_one_machine_is_in_the_project():
    paths = [
        path
        for path in ROOT.rglob("*")
        if path.suffix in {".py", ".md", ".toml"} and ".git" not in path.parts
    ]
    home = re.compile(r"(?<![\w.])/(home|Users|root)/\w+")
    # of whoever works here, by any name
    environments = {config.parent for config in ROOT.rglob("pyvenv.cfg")}
    for path in paths:
        if not {"build", "runs", "_build"} & set(path.parts) and not environments & set(
            path.parents
        ):
            assert not home.search(path.read_text(errors="replace")), (
                f"{path} names a folder of one machine"
            )
