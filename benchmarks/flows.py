"""Normalising flows fitted to two densities in the plane, a banana and two moons: KL(q || p) in nats, and figures.

    python -m benchmarks.flows                          # the table; every flow and two Gaussians for comparison
    python -m benchmarks.flows --figures FOLDER         # and banana.png, two_moons.png: log densities side by side

Each guide maximises the ELBO by Adam on fresh draws, `sample_and_log_prob` where there is one; the KL is then estimated on draws
that no step has seen. The targets are normalised, the moons' by a sum over a grid.
"""

import argparse
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import vi_jax as vi

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
    key: jax.Array, family: vi.Family, target: Target, *, num_steps: int, num_samples: int = 256, learning_rate: float = 5e-3
) -> Any:
    """The family's parameters after so many steps on the ELBO, the learning rate going down to 0 along a cosine.

    Over the first half log p counts from 0.01 to 1 (Rezende & Mohamed 2015, eq. 20): without it a guide that has lost a mode in
    the first steps, which costs log 2 nats of two moons, does not find it again.
    """
    optimizer = optax.chain(optax.clip_by_global_norm(10.0), optax.adam(optax.cosine_decay_schedule(learning_rate, num_steps)))

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
        return jax.lax.scan(step, (params, optimizer.init(params)), (jax.random.split(key_steps, num_steps), weights))[0][0]

    return jax.jit(run)(key)


def kl(key: jax.Array, family: vi.Family, params: Any, target: Target, *, num_samples: int = 20_000) -> tuple[float, float]:
    """KL(q || p) and its standard error, nats."""

    def terms(params: Any, key: jax.Array) -> jax.Array:
        z, log_q = draw(family.guide(params), key, num_samples)
        return log_q - jax.vmap(target)(z)

    values = np.asarray(jax.jit(terms)(params, key), np.float64)
    return float(values.mean()), float(values.std(ddof=1) / num_samples**0.5)


def densities(family: vi.Family, params: Any, num_points: int) -> np.ndarray:
    """q on the grid, [num_points, num_points]: by log_prob, so that the inverse is what is seen."""
    z, _ = grid(num_points)
    log_q = jax.jit(lambda z: jax.vmap(family.guide(params).log_prob)(z))(jnp.asarray(z, jnp.float32))
    return np.exp(np.asarray(log_q)).reshape(num_points, num_points)


def draw_figure(name: str, panels: dict[str, np.ndarray], path: Path) -> None:
    """The target and every guide's density as panels of one picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = 5
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(2.2 * columns, 2.4 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for number, (title, density) in enumerate(panels.items()):
        axes = figure.add_subplot(rows, columns, number + 1)
        axes.imshow(density, origin="lower", extent=(-5, 5, -5, 5), cmap="magma", vmin=0.0, vmax=panels[name].max())
        axes.set_title(title, fontsize=9)
        axes.set_axis_off()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num_steps", type=int, default=4000, help="of Adam")
    parser.add_argument("--guides", nargs="*", default=[*OTHERS, *FLOWS], choices=[*OTHERS, *FLOWS])
    parser.add_argument("--figures", type=Path, help="folder for the pictures")
    arguments = parser.parse_args()
    print("| target | guide | KL(q ‖ p), nats | seconds |\n|---|---|---|---|", flush=True)
    for target_name, target in TARGETS.items():
        z, _ = grid(200)
        panels = {target_name: np.exp(np.asarray(jax.vmap(target)(jnp.asarray(z, jnp.float32)))).reshape(200, 200)}
        for name in arguments.guides:
            family = {**OTHERS, **FLOWS}[name](2)
            began = time.perf_counter()
            params = jax.block_until_ready(fit(jax.random.key(0), family, target, num_steps=arguments.num_steps))
            seconds = time.perf_counter() - began
            value, stderr = kl(jax.random.key(1), family, params, target)
            print(f"| {target_name} | {name} | {value:.4f} ± {stderr:.4f} | {seconds:.0f} |", flush=True)
            if arguments.figures:
                panels[f"{name}, {value:.3f} nats"] = densities(family, params, 200)
        if arguments.figures:
            arguments.figures.mkdir(parents=True, exist_ok=True)
            draw_figure(target_name, panels, arguments.figures / f"{target_name}.png")


if __name__ == "__main__":
    main()
