"""The two estimators of Kingma & Welling (2013), SGVB-A (eq. 6, the KL by the sample) and SGVB-B
(eq. 7, the KL in closed form): the variance of their gradients on a VAE of digits over a training.

    python -m benchmarks.papers_sgvb                 # about two minutes on 2 cores
    python -m benchmarks.papers_sgvb --write         # and rewrite the block of docs/papers.md

One sample of z for each of 100 training images that stay the same, so that the variance is that of
z alone; it is the trace of the covariance over an array of parameters.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import vi_jax as vi
from benchmarks import papers_page, report
from configs import vae
from experiments import build
from experiments.run import session

BATCH = 100
SAMPLES = 1000  # of each gradient
AT_A_TIME = 50
STAGES = (100, 1000, 4000)  # steps of Adam
PARTS = ("encoder", "decoder")


class Moments(NamedTuple):
    """Of the gradients of some parameters: means [D] and variances [D], over `SAMPLES`."""

    mean: np.ndarray
    variance: np.ndarray


class Compared(NamedTuple):
    """Both estimators at one place."""

    steps: int
    part: str  # of the parameters
    a: float  # trace of the covariance of SGVB-A, nats squared
    b: float
    # |mean A - mean B|^2 over what it is expected to be where the means are the same
    distance: float


def losses(model: vi.Model) -> dict[str, vi.losses.Loss]:
    """SGVB-A and SGVB-B of one sample."""
    return {
        "a": vi.losses.negative_bound(model, vi.bounds.elbo, vi.estimators.reparam, num_samples=1),
        "b": vi.losses.negative_elbo(model, num_samples=1),
    }


def moments(
    key: jax.Array, loss: vi.losses.Loss, params: Any, batch: Any, num_samples: int = SAMPLES
) -> dict[str, Moments]:
    """The moments of a loss's gradient by part of the parameters."""

    @jax.jit
    def gradients(keys: jax.Array) -> Any:
        slope = jax.grad(lambda p, key: loss(p, key, batch, jnp.int32(0))[0])
        return jax.vmap(slope, (None, 0))(params, keys)

    sums: Any = None
    for keys in jax.random.split(key, (num_samples // AT_A_TIME, AT_A_TIME)):
        found = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), gradients(keys))
        both = jax.tree.map(lambda leaf: np.stack([leaf.sum(0), (leaf**2).sum(0)]), found)
        sums = both if sums is None else jax.tree.map(np.add, sums, both)
    result = {}
    for part in PARTS:
        rows = np.concatenate([leaf.reshape(2, -1) for leaf in jax.tree.leaves(sums[part])], axis=1)
        (mean, square) = rows / num_samples
        variance = (square - mean**2) * num_samples / (num_samples - 1)
        result[part] = Moments(mean, variance)
    return result


def compare(
    key: jax.Array,
    model: vi.Model,
    params: Any,
    batch: Any,
    steps: int,
    num_samples: int = SAMPLES,
) -> list[Compared]:
    """Both estimators at some parameters, a row for each part of them."""
    key_a, key_b = jax.random.split(key)
    own = losses(model)
    a = moments(key_a, own["a"], params, batch, num_samples)
    b = moments(key_b, own["b"], params, batch, num_samples)
    rows = []
    for part in PARTS:
        traces = [float(each[part].variance.sum()) for each in (a, b)]
        apart = float(((a[part].mean - b[part].mean) ** 2).sum())
        rows.append(Compared(steps, part, *traces, apart * num_samples / sum(traces)))
    return rows


def over_training() -> list[Compared]:
    """Rows at each stage of the training of `configs/vae.py` on digits."""
    config = vae.get_config()
    dataset = session.load_data(config)
    model = session.make_model(config, dataset)
    units = build.units(config, dataset.num_levels)
    prepare = build.prepare(config, units)
    optimizer = build.optimizer(config)
    step = vi.make_step(losses(model)["b"], optimizer, prepare=prepare, grad_norm_every=10)
    run: Any = vi.make_run(step, batch_size=config.train.batch_size)
    data = jnp.asarray(np.asarray(dataset.train.x[:]))
    key_run, key_batch, key_rows = jax.random.split(jax.random.key(0), 3)
    batch = prepare(key_batch, data[:BATCH])
    state = vi.init_state(key_run, model.init, optimizer)
    rows = []
    for number, steps in enumerate(STAGES):
        state, info = run(state, data, steps - int(state.step))
        vi.training.check_finite(info)
        key = jax.random.fold_in(key_rows, number)
        rows += compare(key, model, state.params, batch, steps)
        report.say(f"{steps} steps: done")
    return rows


def describe(rows: list[Compared]) -> str:
    """The table, Markdown, and what was measured."""
    head = ("steps", "parameters", "variance of A", "of B", "A over B", "distance of the means")
    lines = [
        [
            f"{row.steps:,}",
            row.part,
            f"{row.a:.1f}",
            f"{row.b:.1f}",
            f"**{row.a / row.b:.2f}**",
            f"{row.distance:.2f}",
        ]
        for row in rows
    ]
    note = (
        f"A VAE of digits (`configs/vae.py`), {BATCH} images that stay the "
        f"same, one sample of z, {SAMPLES:,} gradients of each estimator. Variances are traces of "
        "the covariance. The distance of the means is in units of what two estimators of one mean "
        f"are expected to be apart: 1. {report.used('jax', 'vi_jax')}"
    )
    return f"{report.markdown_table(head, lines)}\n\n{note}"


def main() -> None:
    parser = report.make_parser(__doc__.split("\n\n")[0], has_json=False)
    flags = parser.parse_args()
    text = describe(over_training())
    print(text)
    if flags.write:
        report.write_block("sgvb", text, papers_page.PAGE)


if __name__ == "__main__":
    main()
