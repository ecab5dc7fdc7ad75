"""What vi.fit tells of itself on its way: reports by steps or by time, phases in words."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vi_jax as vi
from vi_jax.fitting._watch import Blocks


@pytest.mark.parametrize(
    ("every", "seconds_a_step", "want"),
    [
        (40, 0.001, [40] * 6),
        (None, 0.001, [1, 2, 4, 8, 16, 32]),
        (None, 0.5, [1, 2, 4, 4, 4, 4]),
        (None, 7.0, [1] * 6),
    ],
)
def test_reports_come_after_so_many_steps_or_about_every_two_seconds(every, seconds_a_step, want):
    clock = [0.0]
    blocks = Blocks(every, lambda: clock[0])
    sizes = []
    for _ in range(6):
        sizes.append(blocks.size)
        blocks.begin()
        clock[0] += seconds_a_step * blocks.size
        blocks.end(blocks.size)
    assert sizes == want


def test_processes_do_not_go_by_their_own_clocks(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    blocks = Blocks(None)
    blocks.end(blocks.size)
    assert blocks.size == 100


def quadratic(slowly=False):
    """A Gaussian target in 2 dimensions; slow ones sleep for 0.05 s in each value."""

    def log_density(u):
        value = -0.5 * jnp.sum(jnp.square(u - jnp.array([1.0, -2.0])))
        if slowly:
            value = value + waits(jax.lax.stop_gradient(u[0]))
        return value

    def waits(number):
        return jax.pure_callback(
            lambda n: (time.sleep(0.05), np.zeros_like(n))[1],
            jax.ShapeDtypeStruct((), number.dtype),
            number,
            vmap_method="sequential",
        )

    return vi.targets.from_log_density(log_density, 2)


def fit(target, **more):
    method = vi.methods.dadvi(num_draws=2, num_steps=20)
    return vi.fit(jax.random.key(0), target, method, num_draws=50, **more)


@pytest.mark.integration
def test_a_fit_names_its_phases_and_prints_nothing(capfd):
    phases = []
    reports = []
    told = fit(
        quadratic(),
        report=lambda step, value: reports.append(step),
        report_every=None,
        on_phase=phases.append,
    )
    assert phases == [
        "choosing where to start",
        "compiling dadvi",
        "starting dadvi",
        "running dadvi",
        "weighing 50 samples",
    ]
    assert reports[:2] == [1, 3]
    assert reports[-1] == told.num_steps
    silent = fit(quadratic())
    assert capfd.readouterr() == ("", "")
    np.testing.assert_array_equal(silent.history["value"], told.history["value"])
    np.testing.assert_array_equal(silent.weighted.u, told.weighted.u)


def banana(num_latents):
    """A curved pair, whose Gaussian has a bad k-hat, beside standard normals."""

    def log_density(u):
        curved = jnp.square(u[0]) / 9.0 + jnp.square((u[1] - jnp.square(u[0])) / 0.1)
        return -0.5 * (curved + jnp.sum(jnp.square(u[2:])))

    return vi.targets.from_log_density(log_density, num_latents)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("num_latents", "second"), [(2, "compiling an adapted mixture"), (7, "compiling flow")]
)
def test_a_second_method_is_named_too(num_latents, second):
    phases = []
    result = vi.fit(jax.random.key(0), banana(num_latents), fallback=6_400, on_phase=phases.append)
    assert result.fallback
    assert phases[0] == "choosing a method"
    assert phases.index("running bam") < phases.index(second)
    assert phases[-1].startswith("weighing")


@pytest.mark.integration
def test_a_slow_density_reports_each_step_and_says_how_long_its_samples_take_at_most():
    """A value sleeps: seconds for the samples, and a word at each few steps."""
    phases = []
    reports = []
    began = time.monotonic()
    method = vi.methods.advi(vi.families.mean_field, num_draws=1, num_steps=8)
    vi.fit(
        jax.random.key(0),
        quadratic(slowly=True),
        method,
        start=jnp.zeros(2),
        num_draws=25,
        report=lambda step, value: reports.append((time.monotonic() - began, step)),
        report_every=None,
        on_phase=phases.append,
    )
    times = [when for when, _ in reports]
    assert max(np.diff(times)) < 6.0, reports
    assert any(text.startswith("weighing 25 samples") for text in phases)
