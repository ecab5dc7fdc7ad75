"""`oscillations`: simulated damped oscillations of unequal length, whose latents are known.

Each sequence has four latents, independent standard normals that make its amplitude, phase,
frequency and damping. At each step it shows four columns: a position and a velocity with noise, a
count of events whose log rate follows the position, and whether the position is above zero, which
errs near it. A tenth of all entries is missing, and of a fifth of the sequences eight steps in a
row.
"""

from typing import NamedTuple

import numpy as np

from experiments.data.base import Raw, Source

SEED = 0
NUM = 1_500  # sequences
NAMES = ("position", "velocity", "events", "is_above")
SHORTEST = 20  # steps
LONGEST = 60
NOISE = 0.15  # SD of position and velocity
MISSING = 0.1  # share of the entries
GAP = 8  # steps


class Simulated(NamedTuple):
    """Sequences and what made them."""

    x: list[np.ndarray]  # [T_n, 4] each, nan where missing
    latents: np.ndarray  # [N, 4]


def simulate(num: int = NUM, seed: int = SEED) -> Simulated:
    """Sequences of SHORTEST to LONGEST steps."""
    rng = np.random.default_rng(seed)
    latents = rng.standard_normal((num, 4))
    lengths = rng.integers(SHORTEST, LONGEST + 1, num)
    x = [_sequence(rng, each, length) for each, length in zip(latents, lengths, strict=True)]
    return Simulated(x, latents)


def _sequence(rng: np.random.Generator, latents: np.ndarray, length: int) -> np.ndarray:
    """One of a length, [T, 4]."""
    # 1. its parameters
    amplitude = np.exp(0.3 * latents[0])
    phase = 0.8 * latents[1]
    frequency = 0.06 * np.exp(0.25 * latents[2])  # cycles a step
    damping = 0.02 * np.exp(0.5 * latents[3])  # a step
    # 2. what each step shows
    t = np.arange(length)
    angle = 2.0 * np.pi * frequency * t + phase
    envelope = amplitude * np.exp(-damping * t)
    position = envelope * np.cos(angle)
    velocity = -envelope * np.sin(angle)
    x = np.stack(
        [
            position + NOISE * rng.standard_normal(length),
            velocity + NOISE * rng.standard_normal(length),
            rng.poisson(np.exp(0.7 + 0.8 * position)),
            rng.random(length) < 1.0 / (1.0 + np.exp(-5.0 * position)),
        ],
        axis=1,
    )
    # 3. what is missing
    x[rng.random(x.shape) < MISSING] = np.nan
    if rng.random() < 0.2:
        first = rng.integers(1, length - GAP)
        x[first : first + GAP] = np.nan
    return x


def open_source() -> Source:
    """One split, `all`."""

    def read(split: str) -> Raw:
        return Raw(simulate().x, None, 0, "oscillations", NAMES)

    return Source(("all",), read, f"simulated, seed {SEED}")
