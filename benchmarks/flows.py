"""Normalising flows fitted to two densities in the plane, a banana and two moons: KL(q || p) in
nats, and figures.

    python -m benchmarks.flows                     # the table: flows, a Gaussian and a mixture
    python -m benchmarks.flows --figures=FOLDER    # and banana.png, two_moons.png: the densities
    python -m benchmarks.flows --write             # and put the table into benchmarks/README.md

Each guide maximises the ELBO by Adam on fresh draws, `sample_and_log_prob` where there is one; the
KL is then estimated on draws that no step has seen. The targets are normalised, the moons' by a sum
over a grid.
"""

import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import vi_jax as vi
from benchmarks import report

NUM_POINTS = 200  # along a side of a picture
Target = Callable[[jax.Array], jax.Array]

FLOWS: dict[str, Callable[[int], vi.Family]] = {
    "planar": lambda num_latents: vi.families.planar(num_latents, num_layers=16),
    "radial": lambda num_latents: vi.families.radial(num_latents, num_layers=16),
    "sylvester": lambda num_latents: vi.families.sylvester(num_latents, num_layers=8),
    "real_nvp": vi.families.real_nvp,
    "maf": vi.families.maf,
    "iaf": vi.families.iaf,
    "neural_spline": vi.families.neural_spline,
}
OTHERS: dict[str, Callable[[int], vi.Family]] = {
    "full_rank": vi.families.full_rank,
    "mixture": lambda num_latents: vi.families.mixture(num_latents, num_components=8, spread=2.0),
}


class Row(NamedTuple):
    """One fit."""

    kl: float
    stderr: float
    seconds: float  # with the compilation


def banana(z: jax.Array) -> jax.Array:
    """log p of z_1 ~ N(0, 1), z_2 | z_1 ~ N(z_1^2 / 2 - 1/2, 0.5^2), nats."""
    normal = jax.scipy.stats.norm.logpdf
    return normal(z[0]) + normal(z[1], 0.5 * z[0] ** 2 - 0.5, 0.5)


def moons_potential(z: jax.Array) -> jax.Array:
    """-U_1 of Rezende & Mohamed (2015), table 1, without its constant."""
    radius = jnp.sqrt(jnp.sum(z**2) + 1e-12)
    sides = jnp.logaddexp(-0.5 * ((z[0] - 2.0) / 0.6) ** 2, -0.5 * ((z[0] + 2.0) / 0.6) ** 2)
    return -0.5 * ((radius - 2.0) / 0.4) ** 2 + sides


def grid(num_points: int, half: float = 5.0) -> tuple[np.ndarray, float]:
    """Centres of cells on [-half, half]^2, [num_points^2, 2], and the area of one."""
    side = (np.arange(num_points) + 0.5) * (2.0 * half / num_points) - half
    z = np.stack(np.meshgrid(side, side, indexing="xy"), -1).reshape(-1, 2)
    return z, (2.0 * half / num_points) ** 2


@cache
def moons_log_constant() -> float:
    """log of the integral of e^(-U_1), by a grid of float64 (its error is below 1e-6)."""
    z, area = grid(1000, 6.0)
    radius = np.linalg.norm(z, axis=1)
    sides = np.logaddexp(-0.5 * ((z[:, 0] - 2.0) / 0.6) ** 2, -0.5 * ((z[:, 0] + 2.0) / 0.6) ** 2)
    return float(np.log(np.exp(-0.5 * ((radius - 2.0) / 0.4) ** 2 + sides).sum() * area))


def two_moons(z: jax.Array) -> jax.Array:
    """log p of the two moons, nats."""
    return moons_potential(z) - moons_log_constant()


TARGETS: dict[str, Target] = {"banana": banana, "two_moons": two_moons}


def draw(q: Any, key: jax.Array, num_samples: int) -> tuple[jax.Array, jax.Array]:
    """Draws [K, 2] and their log densities [K], without an inverse where the guide offers that."""
    if hasattr(q, "sample_and_log_prob"):
        return q.sample_and_log_prob(key, (num_samples,))
    z = q.sample(key, (num_samples,))
    return z, jax.vmap(q.log_prob)(z)


def fit(
    key: jax.Array,
    family: vi.Family,
    target: Target,
    *,
    num_steps: int,
    num_samples: int = 256,
    learning_rate: float = 5e-3,
) -> Any:
    """The family's parameters after so many steps on the ELBO, the learning rate going down to 0
    along a cosine.

    Over the first half log p counts from 0.01 to 1 (Rezende & Mohamed 2015, eq. 20): without it a
    guide that has lost a mode in the first steps, which costs log 2 nats of two moons, does not
    find it again.
    """
    optimizer = optax.chain(
        optax.clip_by_global_norm(10.0),
        optax.adam(optax.cosine_decay_schedule(learning_rate, num_steps)),
    )

    def loss(params: Any, key: jax.Array, weight: jax.Array) -> jax.Array:
        z, log_q = draw(family.guide(params), key, num_samples)
        return jnp.mean(log_q - weight * jax.vmap(target)(z))

    def step(carry: Any, key_and_weight: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params, *key_and_weight), state, params)
        return (optax.apply_updates(params, updates), state), None

    def run(key: jax.Array) -> Any:
        key_init, key_steps = jax.random.split(key)
        params = family.init(key_init)
        weights = jnp.minimum(1.0, 0.01 + 2.0 * jnp.arange(num_steps) / num_steps)
        return jax.lax.scan(
            step,
            (params, optimizer.init(params)),
            (jax.random.split(key_steps, num_steps), weights),
        )[0][0]

    return jax.jit(run)(key)


def kl(
    key: jax.Array, family: vi.Family, params: Any, target: Target, *, num_samples: int = 20_000
) -> tuple[float, float]:
    """KL(q || p) and its standard error, nats."""

    def terms(params: Any, key: jax.Array) -> jax.Array:
        z, log_q = draw(family.guide(params), key, num_samples)
        return log_q - jax.vmap(target)(z)

    values = np.asarray(jax.jit(terms)(params, key), np.float64)
    return float(values.mean()), float(values.std(ddof=1) / num_samples**0.5)


def densities(family: vi.Family, params: Any, num_points: int) -> np.ndarray:
    """q on the grid, [num_points, num_points]: by log_prob, so that the inverse is what is seen."""
    z, _ = grid(num_points)
    log_q = jax.jit(lambda z: jax.vmap(family.guide(params).log_prob)(z))(
        jnp.asarray(z, jnp.float32)
    )
    return np.exp(np.asarray(log_q)).reshape(num_points, num_points)


def draw_figure(panels: dict[str, np.ndarray], path: Path) -> None:
    """Densities as panels of one picture, on the scale of colours of the first, the target's."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = 5
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(2.4 * columns, 2.8 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    most = next(iter(panels.values())).max()
    for number, (title, density) in enumerate(panels.items()):
        axes = figure.add_subplot(rows, columns, number + 1)
        axes.imshow(
            density, origin="lower", extent=(-5, 5, -5, 5), cmap="magma", vmin=0.0, vmax=most
        )
        axes.set_title(title.replace("_", " "), fontsize=11)
        axes.set_xticks([-4, 0, 4])
        axes.set_yticks([-4, 0, 4])
        axes.tick_params(labelsize=8)
    figure.savefig(path, dpi=110)


def measure(
    target_name: str, guides: list[str], num_steps: int
) -> tuple[dict[str, Row], dict[str, np.ndarray]]:
    """Every guide fitted to one target: its row of the table, and the panels of the picture, the
    target's first.
    """
    target = TARGETS[target_name]
    z, _ = grid(NUM_POINTS)
    density = np.exp(np.asarray(jax.jit(jax.vmap(target))(jnp.asarray(z, jnp.float32))))
    rows = {}
    panels = {target_name: density.reshape(NUM_POINTS, NUM_POINTS)}
    for name in guides:
        family = {**OTHERS, **FLOWS}[name](2)
        began = time.perf_counter()
        params = jax.block_until_ready(fit(jax.random.key(0), family, target, num_steps=num_steps))
        seconds = time.perf_counter() - began
        rows[name] = Row(*kl(jax.random.key(1), family, params, target), seconds)
        report.say(
            f"{target_name}, {name}: {rows[name].kl:.4f} ± {rows[name].stderr:.4f} nats, "
            f"{seconds:.0f} s"
        )
        panels[f"{name}\nKL {rows[name].kl:.3f} nats"] = densities(family, params, NUM_POINTS)
    return rows, panels


def main() -> None:
    """Runs the benchmark from the command line."""
    parser = report.make_parser(
        "Normalising flows fitted to a banana and to two moons.", has_json=False
    )
    parser.add_argument("--num_steps", type=int, default=4000, help="of Adam, with 256 draws each")
    parser.add_argument("--guides", nargs="*", default=[*OTHERS, *FLOWS], choices=[*OTHERS, *FLOWS])
    parser.add_argument("--figures", type=Path, help="folder for the pictures")
    flags = parser.parse_args()
    table: dict[str, dict[str, Row]] = {}
    for name in TARGETS:
        table[name], panels = measure(name, flags.guides, flags.num_steps)
        if flags.figures:
            flags.figures.mkdir(parents=True, exist_ok=True)
            draw_figure(panels, flags.figures / f"{name}.png")
    head = [
        "guide",
        *(f"{name.replace('_', ' ')}: KL(q ‖ p), nats" for name in TARGETS),
        "seconds, both fits",
    ]
    rows = [
        [f"`{name}`", *(f"{table[t][name].kl:.4f} ± {table[t][name].stderr:.4f}" for t in TARGETS)]
        + [f"{sum(table[t][name].seconds for t in TARGETS):.0f}"]
        for name in flags.guides
    ]
    note = (
        f"{flags.num_steps:,} steps of 256 draws; KL on 20,000 draws, ± its standard error. "
        f"{report.used('jax', 'jaxlib', 'optax', 'vi_jax')}"
    )
    text = f"{report.markdown_table(head, rows)}\n\n{note}"
    report.finish("flows", text, flags)


if __name__ == "__main__":
    main()
