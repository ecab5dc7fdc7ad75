"""What random numbers cost, by generator: a batch of binary pixels, its latent noise, and a whole
training step.

python -m benchmarks.prng                        # about a minute on 2 cores
python -m benchmarks.prng --write                # and put the table into benchmarks/README.md
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

import vi_jax as vi
from benchmarks import problem, report
from benchmarks.contenders_vi import make_loss, make_model
from experiments import build

IMPLS = ("threefry2x32", "rbg", "unsafe_rbg")
STEPS = 100  # in one call


def start_draws(impl: str, draw: Callable[[jax.Array], jax.Array]) -> Callable[[], Any]:
    """Draws 100 times in one program, each with a key folded from the step, as training does."""
    key = jax.random.key(0, impl=impl)

    @jax.jit
    def run(first: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, STEPS, lambda i, _: draw(jax.random.fold_in(key, i)), first)

    first = draw(key)
    return lambda: jax.block_until_ready(run(first))


def start_steps(impl: str, the_problem: problem.Problem) -> Callable[[], None]:
    """100 steps of `vi.make_run`."""
    data = jnp.asarray(the_problem.pixels)
    optimizer = optax.adam(1e-3)
    model = make_model(the_problem)
    prepare = lambda key, levels: build.binarise(key, levels, 256)  # noqa: E731
    step = vi.make_step(
        make_loss(the_problem, model), optimizer, prepare=prepare, grad_norm_every=10
    )
    run: Any = vi.make_run(step, batch_size=the_problem.batch_size)
    state = vi.init_state(jax.random.key(0, impl=impl), model.init, optimizer)

    def steps() -> None:
        nonlocal state
        state, info = run(state, data, STEPS)
        vi.training.check_finite(info)

    return steps


def main() -> None:
    """Runs the benchmark from the command line."""
    flags = parse_flags()
    the_problem = problem.make_problem("mlp", "")
    levels = jnp.asarray(the_problem.pixels[: the_problem.batch_size])
    whats: dict[str, Callable[[str], Callable[[], Any]]] = {
        "128 x 784 binary pixels, `jax.random.bernoulli`": partial(
            start_draws, draw=lambda key: problem.binarise(key, levels)
        ),
        "the same, `experiments.build.binarise`": partial(
            start_draws, draw=lambda key: build.binarise(key, levels, 256)
        ),
        "128 x 20 normals": partial(
            start_draws, draw=lambda key: jax.random.normal(key, (128, 20))
        ),
        "a step of the VAE 784-500-20": partial(start_steps, the_problem=the_problem),
    }
    calls: dict[tuple[str, str], Callable[[], Any]] = {
        (what, impl): start(impl) for what, start in whats.items() for impl in IMPLS
    }
    seconds: dict[tuple[str, str], list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(flags.rounds):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            seconds[name].append((time.perf_counter() - began) / STEPS)
    rows = [
        [what, *[f"{1e3 * statistics.median(seconds[what, impl]):.3f}" for impl in IMPLS]]
        for what in whats
    ]
    note = (
        f"Milliseconds, medians over {flags.rounds} rounds in turns. "
        f"{report.used('jax', 'jaxlib', 'vi_jax')}"
    )
    text = f"{report.markdown_table(['ms', *[f'`{impl}`' for impl in IMPLS]], rows)}\n\n{note}"
    report.finish("prng", text, flags)


def parse_flags() -> argparse.Namespace:
    """The command line."""
    parser = report.make_parser("What random numbers cost, by generator.", has_json=False)
    parser.add_argument("--rounds", type=int, default=15, help="turns of each")
    return parser.parse_args()


if __name__ == "__main__":
    main()
