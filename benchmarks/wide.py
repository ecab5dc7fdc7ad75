"""A wide VAE in bfloat16: what part of the device's peak in matrix products training reaches;
`throughput --wide` calls it.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import report
from benchmarks.contenders_vi import start_vi_jax
from benchmarks.problem import Problem, make_weights, mnist_pixels

SIDE = 8192  # of the square matrices of the peak
DTYPES = {"bfloat16": jnp.bfloat16, "float32": None}


def wide_problem(hidden: int = 4096, batch_size: int = 4096) -> Problem:
    """784-4096-4096-20 and batches of 4,096, on random pixels."""
    pixels, source = mnist_pixels("")
    return Problem("wide", (784,), (hidden, hidden), 20, 1, batch_size, 20, pixels, source)


def product_flops(problem: Problem) -> float:
    """Floating-point operations of a step's matrix products: 2 B n m for each, thrice for each
    layer but the first: twice.
    """
    shapes = [w.shape for name, w in make_weights(problem).items() if name.endswith("w")]
    return (
        2.0 * problem.batch_size * (3 * sum(n * m for n, m in shapes) - shapes[0][0] * shapes[0][1])
    )


def peak_run(side: int, dtype: Any) -> Callable[[int], None]:
    """n products of square matrices, one after another in one program."""
    a = jax.random.normal(jax.random.key(0), (side, side), dtype or jnp.float32) / side**0.5

    @partial(jax.jit, donate_argnums=0)
    def run(b: jax.Array, a: jax.Array, n: Any) -> jax.Array:
        return jax.lax.fori_loop(0, n, lambda i, b: a @ b, b)

    b = jnp.copy(a)

    def products(n: int) -> None:
        nonlocal b
        b = jax.block_until_ready(run(b, a, n))

    return products


def seconds_of(call: Callable[[int], Any], number: int) -> float:
    """Of one call."""
    began = time.perf_counter()
    call(number)
    return time.perf_counter() - began


def measure_and_describe(
    num_rounds: int, *, side: int = SIDE, problem: Problem | None = None
) -> tuple[dict[str, Any], str]:
    """TFLOP/s of the step and of the products, taking turns, and a table of them."""
    problem = problem or wide_problem()
    flops = product_flops(problem)
    weights = make_weights(problem)
    rows = []
    result = {}
    for name, dtype in DTYPES.items():
        steps = start_vi_jax(problem, weights, dtype).steps
        products = peak_run(side, dtype)
        steps(problem.block)
        products(10)
        ours = []
        peak = []
        for _ in range(num_rounds):
            ours.append(problem.block * flops / seconds_of(steps, problem.block) / 1e12)
            peak.append(10 * 2 * side**3 / seconds_of(products, 10) / 1e12)
        part = statistics.median(a / b for a, b in zip(ours, peak, strict=True))
        report.say(
            f"{name}: {statistics.median(ours):.3g} of {statistics.median(peak):.3g} TFLOP/s, "
            f"{part:.0%}"
        )
        result[name] = {"step_tflops": ours, "peak_tflops": peak, "part": part}
        rate = statistics.median(ours) * 1e12 / flops
        rows.append(
            [
                name,
                f"{rate:.3g}",
                f"{statistics.median(ours):.3g}",
                f"{statistics.median(peak):.3g}",
                f"{part:.0%}",
            ]
        )
    head = [
        "activations",
        "steps/s",
        "TFLOP/s of its products",
        f"of one of {side:,} x {side:,}",
        "part of the peak",
    ]
    named = report.versions("jax", "jaxlib", "vi_jax").items()
    versions = ", ".join(f"{name} {version}" for name, version in named)
    note = (
        f"{problem.title}: {flops / 1e9:,.0f} GFLOP of products a step. {report.device_name()}; "
        f"{versions}. "
        f"Medians over {num_rounds} rounds."
    )
    return result, f"{report.markdown_table(head, rows)}\n\n{note}"
