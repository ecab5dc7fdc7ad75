"""The floors of the house: imports go down only, and each outside thing has a single home."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import vi_jax as vi

LIBRARY = Path(vi.__file__).parent
FLOORS = (
    {"files", "linalg"},
    {"distributions", "attributes", "arguments", "_renamed"},
    {"types", "kl"},
    {"gaussian", "hmc", "weights", "sampling", "control_variates", "sparse"},
    {"divergences", "families", "bounds", "targets", "draws", "chains"},
    {"models", "estimators", "optimise"},
    {"local"},
    {"methods", "conjugate", "losses", "evidence", "checks"},
    {"diagnostics", "shard"},
    {"fitting", "topics", "training"},
    {"replicas"},
)
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
# Modules that only some rooms may import; a room is a file or a folder right under vi_jax/.
HOMES = {"flax": {"models"}, "optax": {"local", "methods", "optimise", "training", "fitting"}}
NOWHERE = {
    "absl",
    "ml_collections",
    "experiments",
    "configs",
    "benchmarks",
    "os",
    "io",
    "pathlib",
    "pickle",
    "json",
    "shutil",
}
FILE_CALLS = {
    "open",
    "load",
    "loadtxt",
    "save",
    "savez",
    "tofile",
    "fromfile",
    "memmap",
    "read_text",
    "write_text",
    "read_bytes",
}


def sources():
    """{path within vi_jax/: source} of every file."""
    return {
        path.relative_to(LIBRARY).as_posix(): path.read_text()
        for path in sorted(LIBRARY.rglob("*.py"))
    }


def room_of(path):
    return path.split("/")[0].removesuffix(".py")


def imports(source):
    """The dotted names that a file imports, those inside functions too; `from vi_jax import kl` is
    vi_jax.kl.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (
                f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names
            )


def climbs(path, source):
    """What a file imports that is not below it."""
    room = room_of(path)
    problems = []
    if room in ("__init__", "_version"):
        return problems  # the public face, which imports nothing until asked (its own test)
    if room not in FLOOR_OF:
        return [f"{path}: {room} has no floor; give it one in FLOORS"]
    for name in imports(source):
        if name.startswith("."):
            problems.append(f"{path}: relative import of {name}")
        if not name.startswith("vi_jax."):
            continue
        other = name.split(".")[1]
        if other in ("_version", "__version__"):
            continue
        if other not in FLOOR_OF:
            problems.append(f"{path}: imports {name}, which has no floor")
        elif other != room and any(part.startswith("_") for part in name.split(".")[2:]):
            problems.append(f"{path}: imports {name}, which is private to its folder")
        elif other != room and FLOOR_OF[other] >= FLOOR_OF[room]:
            problems.append(
                f"{path}: floor {FLOOR_OF[room]} imports {name} of floor {FLOOR_OF[other]}"
            )
    if room == "estimators":  # handed bounds and guides, they know neither
        known = [
            name
            for name in imports(source)
            if name.split(".")[:2] in (["vi_jax", "bounds"], ["vi_jax", "families"])
        ]
        problems += [f"{path}: an estimator imports {name}" for name in known]
    return problems


def strays(path, source):
    """What a file uses outside the single home of it."""
    room = room_of(path)
    problems = []
    if room == "files":  # the home of what is opened and written
        return problems
    for name in imports(source):
        top = name.split(".")[0]
        if top in NOWHERE or (top in HOMES and room not in HOMES[top]):
            problems.append(f"{path}: imports {top}")
    for node in ast.walk(ast.parse(source)):
        name = getattr(node, "id", None) or getattr(node, "attr", None)
        imported = isinstance(node, ast.ImportFrom) and any(
            alias.name == "stop_gradient" for alias in node.names
        )
        if (name == "stop_gradient" or imported) and room not in ("estimators", "types"):
            problems.append(
                f"{path}: line {node.lineno} uses stop_gradient; its homes are estimators/ and "
                "types.freeze"
            )
        if isinstance(node, ast.Call):
            called = getattr(node.func, "id", None) or getattr(node.func, "attr", None)
            if called in FILE_CALLS:
                problems.append(
                    f"{path}: line {node.lineno} calls {called}; files are opened in vi_jax/files"
                )
    return problems


def test_imports_go_down():
    problems = [problem for path, source in sources().items() for problem in climbs(path, source)]
    assert not problems, "\n".join(problems)


def test_each_thing_has_its_home():
    problems = [problem for path, source in sources().items() for problem in strays(path, source)]
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("kl.py", "from vi_jax.bounds import elbo"),
        ("kl.py", "from vi_jax import types"),
        ("bounds/iwae.py", "import vi_jax.estimators.reparam"),
        ("bounds/iwae.py", "def f():\n    from vi_jax import families"),
        ("estimators/stl.py", "from vi_jax import bounds"),
        ("losses/elbo.py", "from vi_jax.training import train"),
        ("families/flow.py", "from . import mean_field"),
        ("cellar.py", "import jax"),
        ("methods/advi.py", "from vi_jax.families._flow import Flow"),
    ],
)
def test_a_climb_is_seen(path, source):
    assert climbs(path, source)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("families/flow.py", "from flax import linen as nn"),
        ("losses/elbo.py", "import optax"),
        ("losses/elbo.py", "import jax\njax.lax.stop_gradient(1.0)"),
        ("losses/elbo.py", "from jax.lax import stop_gradient as still"),
        ("training/run.py", "from experiments import build"),
        ("training/run.py", "with open('x') as f: pass"),
        ("targets.py", "import numpy as np\nnp.load('x')"),
        ("fit.py", "from absl import logging"),
    ],
)
def test_a_stray_is_seen(path, source):
    assert strays(path, source)


def test_what_is_allowed_is_allowed():
    assert not climbs(
        "losses/elbo.py",
        "from vi_jax.weights import draw\nfrom vi_jax import kl\nimport jax",
    )
    assert not climbs(
        "models/vae.py", "from vi_jax.models.networks import Network\nfrom vi_jax import families"
    )
    assert not strays("models/vae.py", "import flax.linen as nn")
    assert not strays("estimators/stl.py", "import jax\njax.lax.stop_gradient(1.0)")


def run_python(code):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.cases(rest="integration", default=["vi_jax.bounds.iwae-flax numpyro optax"])
@pytest.mark.parametrize(
    ("use", "absent"),
    [
        ("vi_jax", "jax numpy flax numpyro optax"),
        ("vi_jax.freeze", "flax numpyro optax"),
        ("vi_jax.bounds.iwae", "flax numpyro optax"),
        ("vi_jax.elbo", "flax optax"),
    ],
)
def test_nothing_is_loaded_before_it_is_used(use, absent):
    code = f"import sys, vi_jax; {use}; print([m for m in {absent.split()!r} if m in sys.modules])"
    done = run_python(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]", f"using {use} loads {done.stdout}"


@pytest.mark.parametrize("name", vi.__all__)
def test_every_public_name_resolves(name):
    assert getattr(vi, name) is not None
    assert name in dir(vi)


def test_every_room_is_a_public_name():
    rooms = {room_of(path) for path in sources() if not path.startswith("_")}
    assert rooms - set(dir(vi)) == {"draws"}, "draws is the old name of sampling"


def test_type_checkers_see_the_public_names():
    tree = ast.parse((LIBRARY / "__init__.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name for node in block.body for alias in node.names}
    assert seen == {*vi.__all__, "draws"} - {"__version__"}


def test_an_unknown_name_says_what_there_is():
    with pytest.raises(AttributeError, match=r"no 'elbows'.*elbo"):
        _ = vi.elbows


def test_folders_name_their_members():
    for package in (vi.bounds, vi.estimators, vi.families):
        files = {path.stem for path in Path(package.__file__).parent.glob("[a-z]*.py")}
        assert files <= set(package.__all__), (
            f"{package.__name__} exports {package.__all__}; its files are {sorted(files)}"
        )
