"""How much XLA optimises the programs of the commands, and whose choice it is."""

import os
from importlib import metadata

import jax
import jax.numpy as jnp
import pytest

from experiments import startup
from experiments.run import effort

OURS = startup.SECOND_LEVEL
OTHER = "--xla_cpu_multi_thread_eigen=true"
OWN = f"--{startup.LEVEL}=3"


@pytest.mark.parametrize(
    ("platforms", "flags", "expected"),
    [
        ("cpu", "", OURS),
        ("cpu", OTHER, f"{OTHER} {OURS}"),
        ("cpu", OWN, OWN),
        ("cpu", f"{OTHER} {OWN}", f"{OTHER} {OWN}"),
        ("cuda", "", ""),
        ("cuda,cpu", "", ""),
    ],
)
def test_programs_for_a_cpu_are_optimised_less_unless_the_user_says(
    monkeypatch, platforms, flags, expected
):
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    monkeypatch.setenv("XLA_FLAGS", flags)
    startup.compile_sooner()
    assert os.environ["XLA_FLAGS"] == expected


@pytest.mark.parametrize(("plugins", "expected"), [((), OURS), (("cuda",), "")])
def test_an_installed_accelerator_keeps_the_level_of_xla(monkeypatch, plugins, expected):
    monkeypatch.setenv("JAX_PLATFORMS", "")
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setattr(metadata, "entry_points", lambda group: plugins)
    monkeypatch.setattr(startup, "find_spec", lambda name: None)
    startup.compile_sooner()
    assert os.environ["XLA_FLAGS"] == expected


@pytest.mark.parametrize("flags", ["", OWN, f"{OURS} {OWN}", f"--{startup.LEVEL}=0"])
def test_evaluations_are_compiled_as_the_user_asks(monkeypatch, flags):
    monkeypatch.setenv("XLA_FLAGS", flags)
    assert effort.of_evaluations() == {}
    assert effort.of_importance_samples() == {}


def test_evaluations_are_compiled_sooner_where_the_level_is_ours(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", f"{OTHER} {OURS}")
    options = effort.of_evaluations()
    assert options[startup.LEVEL] == 1
    assert startup.LEVEL not in effort.of_importance_samples()
    program = jax.jit(lambda x: jnp.cumsum(jnp.exp(x)), compiler_options=options)
    assert jnp.allclose(program(jnp.zeros(3)), jnp.arange(1.0, 4.0))
