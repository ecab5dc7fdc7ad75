"""`lorenz`: spikes of 30 simulated neurons that follow a Lorenz system, with the true rates.

The benchmark of latent dynamics since LFADS (Pandarinath et al. 2018, supplementary table 1): 65
conditions, each a start of the system, of 20 trials of 1 s in 100 bins of 10 ms. Log rates are
linear in the three latents, around 5 Hz, and constant within a bin, which is one Euler step. The
latents are centred and scaled all together, so that every condition follows one flow.

Splits: `train` and `test` share their conditions (the first 16 trials of each, and the last 4), as
published; `old_conditions` and `new_conditions` do not (the first 52, and the last 13), which
tells dynamics from remembered trials.
"""

from typing import NamedTuple

import numpy as np

from experiments.data.base import Raw, Source

SEED = 0
NUM_CONDITIONS = 65
NUM_TRIALS = 20  # of each
NUM_TRAINING = 16  # of these
NUM_OLD = 52  # conditions
NUM_NEURONS = 30
NUM_STEPS = 100  # bins
BIN = 10  # ms
BASE_RATE = 5.0  # Hz
SIGMA = 10.0
RHO = 28.0
BETA = 8.0 / 3.0
EULER = 0.006  # time of the system in a bin
BURN_IN = 500  # bins
SPLITS = ("train", "test", "old_conditions", "new_conditions")


class Simulated(NamedTuple):
    """Spikes and what made them, by trial."""

    counts: np.ndarray  # [N, T, D]
    condition: np.ndarray  # [N]
    rates: np.ndarray  # expected counts of a bin, [N, T, D]
    latents: np.ndarray  # [N, T, 3]


def simulate(seed: int = SEED) -> Simulated:
    """All trials, those of a condition one after the other."""
    rng = np.random.default_rng(seed)
    # 1. the system, a start for each condition
    state = rng.standard_normal((NUM_CONDITIONS, 3)) + np.array([0.0, 0.0, 25.0])
    path = np.empty((NUM_CONDITIONS, NUM_STEPS, 3))
    for step in range(-BURN_IN, NUM_STEPS):
        state = state + EULER * _flow(state)
        if step >= 0:
            path[:, step] = state
    path -= path.mean((0, 1))
    path /= np.abs(path).max()
    # 2. log rates
    signs = np.sign(rng.standard_normal((3, NUM_NEURONS)))
    loadings = (1.0 + rng.random((3, NUM_NEURONS))) * signs
    chance = BASE_RATE * np.exp(path @ loadings) / 1_000.0  # of a spike in a millisecond
    # 3. at most one spike a millisecond
    shape = (NUM_CONDITIONS, NUM_TRIALS, *chance.shape[1:])
    counts = rng.binomial(BIN, -np.expm1(-chance)[:, None], shape).astype(float)
    of_trial = np.repeat(np.arange(NUM_CONDITIONS), NUM_TRIALS)
    return Simulated(
        counts.reshape(-1, *shape[2:]), of_trial, BIN * chance[of_trial], path[of_trial]
    )


def _flow(state: np.ndarray) -> np.ndarray:
    x, y, z = state.T
    return np.stack([SIGMA * (y - x), x * (RHO - z) - y, x * y - BETA * z], axis=1)


def split_rows(condition: np.ndarray, split: str) -> np.ndarray:
    """The trials of one of SPLITS, by their condition [N]: whichever order they come in, the first
    four fifths of each condition are training trials, and of the conditions the first four fifths
    are old.
    """
    names, codes = np.unique(condition, return_inverse=True)
    order = np.argsort(codes, kind="stable")
    sizes = np.bincount(codes)
    place = np.empty(len(codes), np.int64)
    place[order] = np.arange(len(codes)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    is_training = place < np.rint(sizes * NUM_TRAINING / NUM_TRIALS)[codes]
    is_old = codes < round(len(names) * NUM_OLD / NUM_CONDITIONS)
    chosen = {
        "train": is_training,
        "test": ~is_training,
        "old_conditions": is_old,
        "new_conditions": ~is_old,
    }
    return np.flatnonzero(chosen[split])


def open_source() -> Source:
    """The splits of SPLITS."""

    def read(split: str) -> Raw:
        made = simulate()
        rows = split_rows(made.condition, split)
        truth = {"rates": made.rates[rows], "latents": made.latents[rows]}
        names = tuple(f"neuron_{n}" for n in range(NUM_NEURONS))
        counts = made.counts[rows]
        lengths = np.full(len(counts), counts.shape[1])
        return Raw(counts, made.condition[rows], 0, "lorenz", names, lengths, truth=truth)

    return Source(SPLITS, read, f"simulated, seed {SEED}")
