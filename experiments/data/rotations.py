"""`rotations`: spikes of 50 simulated neurons that follow a point in the plane, which turns in one
of three ways, with the true rates, latents and states.

A hidden state, which lasts 130 bins in the mean, says how the point turns: by 0.05, 0.25 or -0.2 a
bin, towards the centre by 0.2 % and with noise of variance 0.0025. Log rates are linear in it,
around half a spike a bin. 36 trials of 200 bins; splits `train` (24 of them) and `test`.
"""

import numpy as np

from experiments.data.base import Raw, Source

SEED = 0
NUM_TRIALS = 36
NUM_TRAINING = 24
NUM_STEPS = 200
NUM_NEURONS = 50
TURNS = (0.05, 0.25, -0.2)  # radians a bin
DECAY = 0.998
NOISE = 0.0025  # variance, a bin
STAY = 0.9925  # probability of a state to last; the others have the rest alike
BASE_RATE = 0.5  # spikes a bin
LOADING = 0.6  # standard deviation
SPLITS = ("train", "test")


def simulate(seed: int = SEED) -> dict[str, np.ndarray]:
    """`counts` [trials, T, N], `rates`, `latents` [trials, T, 2] and `states` [trials, T], of which
    state t moves the point from bin t to the next.
    """
    rng = np.random.default_rng(seed)
    # 1. states
    num_states = len(TURNS)
    leave = (1.0 - STAY) / (num_states - 1)
    moves = np.where(np.eye(num_states, dtype=bool), STAY, leave)
    states = np.empty((NUM_TRIALS, NUM_STEPS), np.int64)
    states[:, 0] = rng.integers(num_states, size=NUM_TRIALS)
    for step in range(1, NUM_STEPS):
        chance = rng.random(NUM_TRIALS)[:, None]
        bounds = moves[states[:, step - 1]].cumsum(1)
        states[:, step] = np.minimum((chance > bounds).sum(1), num_states - 1)
    # 2. the path
    angles = np.array(TURNS)
    cosines = np.cos(angles)
    sines = np.sin(angles)
    turns = DECAY * np.array([[cosines, -sines], [sines, cosines]]).transpose(2, 0, 1)
    path = np.empty((NUM_TRIALS, NUM_STEPS, 2))
    path[:, 0] = rng.standard_normal((NUM_TRIALS, 2))
    for step in range(1, NUM_STEPS):
        moved = np.einsum("nij,nj->ni", turns[states[:, step - 1]], path[:, step - 1])
        path[:, step] = moved + NOISE**0.5 * rng.standard_normal(moved.shape)
    # 3. counts
    loadings = LOADING * rng.standard_normal((2, NUM_NEURONS))
    rates = BASE_RATE * np.exp(path @ loadings)
    counts = rng.poisson(rates).astype(float)
    return {"counts": counts, "rates": rates, "latents": path, "states": states}


def open_source() -> Source:
    """The splits of SPLITS."""

    def read(split: str) -> Raw:
        made = simulate()
        rows = {"train": slice(NUM_TRAINING), "test": slice(NUM_TRAINING, None)}[split]
        truth = {name: made[name][rows] for name in ("rates", "latents", "states")}
        names = tuple(f"neuron_{n}" for n in range(NUM_NEURONS))
        counts = made["counts"][rows]
        lengths = np.full(len(counts), NUM_STEPS)
        return Raw(counts, None, 0, "rotations", names, lengths, truth=truth)

    return Source(SPLITS, read, f"simulated, seed {SEED}")
