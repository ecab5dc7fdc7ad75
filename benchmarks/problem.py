"""What every contender trains: the sizes of the VAE, the pixels, and the order of the work."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

LEARNING_RATE = 1e-3
MNIST_MEAN = 0.1307  # of the training pixels, in [0, 1]
MNIST_FILE = "train-images-idx3-ubyte.gz"


class Problem(NamedTuple):
    """A VAE num_pixels-num_hidden-num_latents and its data; one latent draw per example, Adam, dynamic binarisation."""

    num_pixels: int
    num_hidden: int
    num_latents: int
    batch_size: int
    block: int  # steps between two looks at the metrics: what a compiled loop does in one call
    pixels: np.ndarray  # [N, num_pixels] uint8

    @property
    def batches_per_epoch(self) -> int:
        """Batches in an epoch, the last one filled from the front of the order."""
        return -(-len(self.pixels) // self.batch_size)


class Contender(NamedTuple):
    """One way to train.

    `steps(n)` takes n further steps, n a multiple of the block, waits for the last and returns their mean ELBO, nats
    per example; nan where nothing is trained.
    """

    name: str
    how: str  # for the table's reader
    start: Callable[[Problem], Callable[[int], float]]  # problem -> steps


class NotAvailable(Exception):
    """This contender cannot run here; says why, in a sentence."""


def make_problem(model: str, batch_size: int, block: int, data_dir: str) -> tuple[Problem, str]:
    """The problem, and a sentence on where its pixels come from.

    Args:
      model: pixels-hidden-latents, e.g. 784-500-20.
      batch_size: examples a step.
      block: steps a block.
      data_dir: folder with MNIST's training images, used where it has them and the model 784 pixels.

    Raises:
      ValueError: `model` is not three positive whole numbers.
    """
    sizes = model.split("-")
    if len(sizes) != 3 or not all(size.isdigit() and int(size) for size in sizes):
        raise ValueError(f"--model wants PIXELS-HIDDEN-LATENTS, e.g. 784-500-20; got {model!r}.")
    num_pixels, num_hidden, num_latents = map(int, sizes)
    path = Path(data_dir) / MNIST_FILE
    if num_pixels == 784 and path.exists():
        pixels = np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=16).reshape(-1, 784)
        source = f"MNIST's {len(pixels):,} training images"
    else:
        pixels = _random_pixels(60_000, num_pixels)
        source = f"{len(pixels):,} images of random pixels with MNIST's mean"
    return Problem(num_pixels, num_hidden, num_latents, batch_size, block, pixels), source


def _random_pixels(num_images: int, num_pixels: int) -> np.ndarray:
    """uint8 [N, num_pixels] of mean about MNIST's: u^a of uniform u has mean 1 / (1 + a)."""
    uniform = np.random.default_rng(0).random((num_images, num_pixels), np.float32)
    return (255 * uniform ** (1 / MNIST_MEAN - 1)).round().astype(np.uint8)


def binarise(key: jax.Array, pixels: jax.Array) -> jax.Array:
    """Each pixel is on with probability level / 255, drawn afresh, float32; the same for every contender in JAX."""
    return jax.random.bernoulli(key, pixels * jnp.float32(1 / 255)).astype(jnp.float32)


class HostOrder:
    """Shuffled epochs on the host: the rows of one batch after another, int32 [batch_size]."""

    def __init__(self, problem: Problem, seed: int = 0) -> None:
        self._problem, self._generator, self._position = problem, np.random.default_rng(seed), 0
        self._order = np.empty(0, np.int32)

    def next(self) -> np.ndarray:
        """The next batch's rows."""
        if self._position == 0:
            order = self._generator.permutation(len(self._problem.pixels)).astype(np.int32)
            self._order = np.resize(order, (self._problem.batches_per_epoch, self._problem.batch_size))
        rows = self._order[self._position]
        self._position = (self._position + 1) % self._problem.batches_per_epoch
        return rows
