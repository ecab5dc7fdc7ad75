"""Settings of every test: the CPU unless asked otherwise, no key drawn from twice, no setting left
behind, and a limit of time.
"""

import gc
import os
from importlib import metadata
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tests compile far more than they compute: programs are compiled quickly, not to run quickly.
# (Fusion emitters: XLA ends on a flag that it does not know, and later releases do not know this
# one. A split program is compiled in parallel pieces, each with the cost of a program: small ones
# are compiled whole.)
os.environ["XLA_FLAGS"] = " ".join(
    ["--xla_backend_optimization_level=0", "--xla_cpu_parallel_codegen_split_count=1"]
    + ["--xla_cpu_use_fusion_emitters=false"] * metadata.version("jaxlib").startswith("0.10.")
    + [os.environ.get("XLA_FLAGS", "")]
)

import cases
import hypothesis
import jax
import pytest
import shared_contexts
from time_limit import pytest_addoption, pytest_configure, pytest_runtest_protocol  # noqa: F401

# A key that is used twice is an error. Rank promotion cannot be one everywhere: numpyro's own
# `sample(key, (K,))` of a guide with a batch or event axis is [K, D] * [D]; what does not sample
# asks for the fixture `strict_ranks`.
jax.config.update("jax_debug_key_reuse", True)
shared_contexts.install()

# Garbage of cycles is looked for rarely: tracing makes many objects that live, and a search goes
# through all of them (a tenth of the tests' time).
gc.set_threshold(50_000, 20, 50)

hypothesis.settings.register_profile(
    "fixed", derandomize=True, deadline=None, max_examples=30, database=None
)
hypothesis.settings.load_profile("fixed")

_WATCHED = (
    "jax_enable_x64",
    "jax_numpy_rank_promotion",
    "jax_debug_key_reuse",
    "jax_debug_nans",
    "jax_disable_jit",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Tests that run the commands as processes are integration tests; slow ones are only slow."""
    cases.place(items, are_whole=not any("::" in given for given in config.args))
    for item in items:
        if item.get_closest_marker("slow") is not None:
            item.own_markers = [mark for mark in item.own_markers if mark.name != "integration"]
        elif "commands" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.integration)


def pytest_collection_finish():
    """What imports and collecting left is not looked through again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _config_left_as_found():
    before = {name: getattr(jax.config, name) for name in _WATCHED}
    yield
    after = {name: getattr(jax.config, name) for name in _WATCHED}
    for name, value in before.items():
        jax.config.update(name, value)
    assert after == before, f"this test left jax's settings changed: {after}, were {before}"


@pytest.fixture(autouse=True, scope="module")
def _programs_are_let_go():
    """A process may map only so many pieces of memory (65,530 on Linux), and compiled programs take
    several each.
    """
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_text().count("\n") > 30_000:
        jax.clear_caches()
        gc.collect()


@pytest.fixture
def strict_ranks():
    """[B] - [B, 1] is an error rather than a [B, B] matrix."""
    with jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture
def no_key_check():
    """Keys may be used twice: the check takes the keys of a scan inside a vmap for used ones
    (`vmap(lambda k: lax.map(normal, split(k, 2)))` is an error), and loses sight of those of
    donated states.
    """
    with jax.debug_key_reuse(False):
        yield


@pytest.fixture
def x64():
    """float64 by default."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the repository; VI_JAX_SHARED names another."""
    beside = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("VI_JAX_SHARED", beside)) / "data"
    if not folder.is_dir():
        pytest.skip(
            f"the real data is not at hand: {folder} is no folder (VI_JAX_SHARED names the one "
            "that holds data/)"
        )
    return folder
