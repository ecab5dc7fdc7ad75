"""What every contender trains: the sizes of the VAE, where its weights start, the pixels, and the
order of the work.
"""

import gzip
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

LEARNING_RATE = 1e-3
MNIST_MEAN = 0.1307  # of the training pixels, in [0, 1]
MNIST_FILE = "train-images-idx3-ubyte.gz"

Weights = dict[str, np.ndarray]  # e0w, e0b, e1w, ... of the encoder, d0w, d0b, ... of the decoder


class Problem(NamedTuple):
    """A VAE with Bernoulli pixels, binarised afresh at every step, trained by Adam.

    With K = 1 the ELBO with its KL in closed form, else the importance-weighted bound of K draws.
    Dense layers and tanh, or 3x3 convolutions of stride 2 and gelu; the decoder is the encoder's
    mirror.
    """

    name: str
    x_shape: tuple[int, ...]  # [P] or [H, W, C]
    hidden: tuple[int, ...]
    num_latents: int
    num_samples: int  # K
    batch_size: int
    block: int  # steps between two looks at the metrics: what a compiled loop does in one call
    pixels: np.ndarray  # [N, *x_shape] uint8
    source: str  # of the pixels, in words

    @property
    def conv(self) -> bool:
        """Whether the layers are convolutions."""
        return len(self.x_shape) == 3

    @property
    def smallest(self) -> tuple[int, int]:
        """Rows and columns of the image that the last convolution leaves."""
        stride = 2 ** len(self.hidden)
        (height, width) = self.x_shape[:2]
        return -(-height // stride), -(-width // stride)

    @property
    def batches_per_epoch(self) -> int:
        """Batches in an epoch, the last one filled from the front of the order."""
        return -(-len(self.pixels) // self.batch_size)

    @property
    def title(self) -> str:
        """The model in words."""
        sizes = "-".join(map(str, (*self.hidden, self.num_latents)))
        shape = "x".join(map(str, self.x_shape))
        bound = "ELBO" if self.num_samples == 1 else f"IWAE, K = {self.num_samples}"
        return (
            f"{'convolutions' if self.conv else 'MLP'} {shape}-{sizes}, {bound}, batch "
            f"{self.batch_size}"
        )


class Running(NamedTuple):
    """A contender that has started.

    `steps(n)` takes n further steps, n a multiple of the block, waits for the last and returns
    their mean bound, nats per example; nan where nothing is trained. `loss(x)` is the loss of x [B,
    *x_shape] in {0, 1} at the parameters as they stand, from fresh draws; None where nothing is
    trained.
    """

    steps: Callable[[int], float]
    loss: Callable[[np.ndarray], float] | None


class Contender(NamedTuple):
    """One way to train."""

    name: str
    how: str  # for the table's reader
    start: Callable[[Problem, Weights], Running]


class NotAvailable(Exception):
    """This contender cannot run here; says why, in a sentence."""


def make_problem(name: str, data_dir: str) -> Problem:
    """One of `mlp`, `iwae`, `conv`, `photos`; MNIST's training images where `data_dir` has them,
    else random pixels of their mean.

    Raises:
      ValueError: there is no such problem.
    """
    if name == "conv":
        pixels, source = _random_pixels(10_000, (32, 32, 3))
        return Problem(name, (32, 32, 3), (32, 64), 64, 1, 128, 20, pixels, source)
    if name == "photos":
        pixels, source = _random_pixels(512, (218, 178, 3))
        return Problem(name, (218, 178, 3), (16, 32, 64, 128), 64, 1, 128, 2, pixels, source)
    if name not in ("mlp", "iwae"):
        raise ValueError(f"a problem is mlp, iwae, conv or photos; got {name!r}.")
    pixels, source = mnist_pixels(data_dir)
    num_samples, batch_size, block = (1, 128, 100) if name == "mlp" else (50, 20, 20)
    return Problem(name, (784,), (500,), 20, num_samples, batch_size, block, pixels, source)


def mnist_pixels(data_dir: str) -> tuple[np.ndarray, str]:
    """[N, 784] uint8, and where they come from."""
    path = Path(data_dir) / MNIST_FILE
    if not path.exists():
        return _random_pixels(60_000, (784,))
    pixels = np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=16).reshape(-1, 784)
    return pixels, f"MNIST's {len(pixels):,} training images"


def _random_pixels(num_images: int, shape: tuple[int, ...]) -> tuple[np.ndarray, str]:
    """uint8 [N, *shape] of mean about MNIST's: u^a of uniform u has mean 1 / (1 + a)."""
    uniform = np.random.default_rng(0).random((num_images, *shape), np.float32)
    pixels = (255 * uniform ** (1 / MNIST_MEAN - 1)).round().astype(np.uint8)
    return pixels, f"{num_images:,} images of random pixels with MNIST's mean"


def make_weights(problem: Problem, seed: int = 0) -> Weights:
    """Where all start: kernels [..., in, out] of N(0, 1 / fan-in), the encoder's last at a tenth of
    that; biases 0.
    """
    rng = np.random.default_rng(seed)
    weights = {}
    for name, shape in _shapes(problem).items():
        scale = np.prod(shape[:-1]) ** -0.5 * (0.1 if name == f"e{len(problem.hidden)}" else 1.0)
        weights[f"{name}w"] = (scale * rng.standard_normal(shape)).astype(np.float32)
        weights[f"{name}b"] = np.zeros(shape[-1], np.float32)
    return weights


def _shapes(problem: Problem) -> dict[str, tuple[int, ...]]:
    sizes = problem.hidden
    latents = problem.num_latents
    last = len(problem.hidden)
    if not problem.conv:
        up = (problem.x_shape[0], *sizes, 2 * latents)
        down = (latents, *sizes[::-1], problem.x_shape[0])
        shapes = {f"e{i}": up[i : i + 2] for i in range(last + 1)}
        return shapes | {f"d{i}": down[i : i + 2] for i in range(last + 1)}
    flat = math.prod(problem.smallest) * sizes[-1]
    widths = (problem.x_shape[-1], *sizes)
    shapes = {f"e{i}": (3, 3, *widths[i : i + 2]) for i in range(last)} | {
        f"e{last}": (flat, 2 * latents),
        "d0": (latents, flat),
    }
    return shapes | {f"d{i + 1}": (3, 3, *widths[::-1][i : i + 2]) for i in range(last)}


def binarise(key: jax.Array, pixels: jax.Array) -> jax.Array:
    """Each pixel is on with probability level / 255, drawn afresh, float32; what one would write in
    JAX.
    """
    return jax.random.bernoulli(key, pixels * jnp.float32(1 / 255)).astype(jnp.float32)


class HostOrder:
    """Shuffled epochs on the host: the rows of one batch after another, int32 [batch_size]."""

    def __init__(self, problem: Problem, seed: int = 0) -> None:
        self._problem = problem
        self._generator = np.random.default_rng(seed)
        self._position = 0
        self._order = np.empty(0, np.int32)

    def next(self) -> np.ndarray:
        """The next batch's rows."""
        if self._position == 0:
            order = self._generator.permutation(len(self._problem.pixels)).astype(np.int32)
            self._order = np.resize(
                order, (self._problem.batches_per_epoch, self._problem.batch_size)
            )
        rows = self._order[self._position]
        self._position = (self._position + 1) % self._problem.batches_per_epoch
        return rows
