"""The programs of a fit: what is an argument of them, and what XLA is asked."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vi_jax as vi
from vi_jax.fitting import _compile
from vi_jax.fitting._compile import Program, compiled, compiler_options, largest_array, traced_once
from vi_jax.fitting._once import _num_draws

DATA = jnp.arange(100_000.0)


def dense(u):
    return -0.5 * jnp.sum((DATA / 1e5 - u[0]) ** 2) - 0.5 * u[1] ** 2


def test_data_are_arguments_of_a_program_and_no_constants():
    target = traced_once(vi.targets.from_log_density(dense, 2))

    def climb(u):
        return jax.lax.fori_loop(0, 3, lambda i, u: u + 1e-6 * jax.grad(target.log_density)(u), u)

    u = jnp.array([0.3, -0.2])
    (run,) = compiled(Program({}, climb, (u,)))
    assert run.func.memory_analysis().argument_size_in_bytes >= DATA.nbytes
    np.testing.assert_allclose(run(u), jax.jit(climb)(u), rtol=1e-6)


def test_data_of_several_programs_are_laid_out_once():
    target = traced_once(vi.targets.from_log_density(dense, 2))
    placed = []
    u = jnp.array([0.3, -0.2])
    programs = [Program({}, f, (u,)) for f in (target.log_density, jax.grad(target.log_density))]
    value, slope = compiled(*programs, place=lambda array: placed.append(array.shape) or array)
    assert placed.count(DATA.shape) == 1
    np.testing.assert_allclose(value(u), dense(u), rtol=1e-6)
    np.testing.assert_allclose(slope(u), jax.grad(dense)(u), rtol=1e-6)


def test_a_program_takes_and_gives_pytrees_and_may_take_memory():
    def step(tree, shift):
        return {"a": tree["a"] + shift, "key": tree["key"]}, DATA[:2]

    tree = {"a": jnp.ones(3), "key": jax.random.key(3)}
    (run,) = compiled(Program({}, step, (tree, jnp.float32(2)), donate=(0,)))
    new, head = run(tree, jnp.float32(2))
    np.testing.assert_array_equal(new["a"], 3 * np.ones(3))
    np.testing.assert_array_equal(head, [0.0, 1.0])
    assert tree["a"].is_deleted()
    assert jax.random.key_data(new["key"]).tolist() == [0, 3]


def test_a_density_is_traced_once_whatever_is_asked_of_it():
    traces = []

    def density(u):
        traces.append(u)
        return dense(u)

    target = traced_once(vi.targets.from_log_density(density, 2))
    traces.clear()
    u = jnp.array([0.1, 0.2])
    jax.jit(jax.vmap(jax.value_and_grad(target.log_density)))(u[None])
    jax.jit(jax.hessian(target.log_density))(u)
    assert len(traces) <= 1  # none where JAX remembers the trace of the target's making
    np.testing.assert_allclose(jax.grad(target.log_density)(u), jax.grad(dense)(u), rtol=1e-6)


@pytest.mark.integration
def test_what_this_xla_does_not_know_is_not_asked_of_it(monkeypatch):
    assert not _compile._is_known("xla_no_such_option", False)
    target = vi.targets.from_log_density(lambda u: -0.5 * jnp.sum(u**2), 2)
    monkeypatch.setattr(_compile, "_PLAIN_LOOPS", ("xla_no_such_option", False))
    options = compiler_options(target, vi.methods.bam(), num_starts=1, num_draws=100)
    assert all("xla_no_such_option" not in asked for asked in options)
    assert vi.fit(jax.random.key(0), target, num_draws=100).converged


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="options are for the CPU's compiler")
def test_only_small_programs_are_not_optimised():
    level = "xla_backend_optimization_level"
    small = vi.targets.from_log_density(lambda u: -0.5 * jnp.sum(u**2), 2)
    large = vi.targets.from_log_density(dense, 2)
    assert largest_array(large.log_density, 2) == len(DATA)
    assert all(
        level in asked
        for asked in compiler_options(small, vi.methods.bam(), num_starts=1, num_draws=4000)
    )
    options = compiler_options(large, vi.methods.advi(), num_starts=1, num_draws=4000)
    assert level in options.start
    assert level not in options.steps
    # it takes some 2,000 gradients
    options = compiler_options(large, vi.methods.bam(), num_starts=1, num_draws=4000)
    assert level in options.steps

    x = jnp.ones((200_000, 5))
    rows = vi.targets.from_rows(
        lambda w: -0.5 * jnp.sum(w**2), lambda w, x: -0.5 * (x @ w) ** 2, x, 5, batch_size=500
    )
    # all rows are drawn from, not gone through
    assert largest_array(lambda u: rows.sampled(jax.random.key(0))(u), 5) < 5_000
    options = compiler_options(rows, vi.methods.advi(), num_starts=1, num_draws=100)
    assert level in options.init
    assert level in options.steps


def count_compilations(monkeypatch):
    """A list that grows with each program that XLA compiles from here on."""
    names = []
    monkeypatch.setattr(
        jax._src.compiler,
        "backend_compile_and_load",
        _noting(jax._src.compiler.backend_compile_and_load, names),
    )
    return names


def _noting(compile_one, names):
    def noted(*args, **kwargs):
        names.append(args[1].operation.attributes["sym_name"])
        return compile_one(*args, **kwargs)

    return noted


@pytest.mark.integration
def test_a_second_fit_of_the_same_shapes_compiles_nothing(monkeypatch):
    def made(shift):
        data = jnp.linspace(0.0, 1.0, 20) + shift
        return vi.targets.from_log_density(
            lambda u: -0.5 * jnp.sum((data - u[0]) ** 2) - 0.5 * jnp.sum(u**2), 2
        )

    names = count_compilations(monkeypatch)
    first = vi.fit(jax.random.key(0), made(0.0), num_draws=100)
    assert names
    names.clear()
    # other data, other random numbers, another length of the run
    second = vi.fit(jax.random.key(7), made(1.0), num_draws=100)
    assert names == []
    assert second.diagnostics.verdict == first.diagnostics.verdict == "reliable"
    assert abs(second.guide.mean[0] - first.guide.mean[0] - 20 / 21) < 1e-3


def test_other_constants_are_another_program():
    u = jnp.array([0.3, -0.2])
    (twice,) = compiled(Program({}, lambda u: 2.0 * u, (u,)))
    (thrice,) = compiled(Program({}, lambda u: 3.0 * u, (u,)))
    np.testing.assert_allclose(thrice(u), 1.5 * twice(u))
    (tree,) = compiled(Program({}, lambda u: {"a": 2.0 * u}, (u,)))
    assert set(tree(u)) == {"a"}


def test_fewer_samples_are_weighed_where_a_value_is_slow():
    small = vi.targets.from_log_density(lambda u: -0.5 * jnp.sum(u**2), 2)
    data = jnp.arange(1_000_000.0)
    large = vi.targets.from_log_density(lambda u: -0.5 * jnp.sum((data - u[0]) ** 2), 2)
    assert _num_draws(None, small, 10.0, is_spread=False) == (4000, "")
    assert _num_draws(None, large, 1e-5, is_spread=False) == (4000, "")
    num_draws, why = _num_draws(None, large, 1.9e-3, is_spread=False)
    assert (num_draws, why[:24]) == (2000, "not 4,000, since a gradi")
    assert "takes 1.9 ms; num_draws= sets it" in why
    assert _num_draws(None, large, 10.0, is_spread=False)[0] == 1000
    assert _num_draws(None, large, 10.0, is_spread=True) == (4000, "")
    assert _num_draws(7000, large, 10.0, is_spread=False) == (7000, "")
