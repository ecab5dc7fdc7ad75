"""The same VAE in PyTorch, eager and compiled, its data on its device too."""

import importlib.util
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks.problem import LEARNING_RATE, Contender, NotAvailable, Problem, Running, Weights


def start_torch(problem: Problem, weights: Weights, *, compiled: bool) -> Running:
    """`nn.Linear` or `nn.Conv2d`, `torch.optim.Adam`; rows shuffled, pixels gathered and binarised
    on the device.

    Compiled, the loss and its gradient go through `torch.compile`, and Adam takes its fused form.

    Raises:
      NotAvailable: PyTorch is not installed, or cannot compile here.
    """
    if importlib.util.find_spec("torch") is None:
        raise NotAvailable("PyTorch is not installed; `pip install torch` adds this row")
    import jax
    import torch

    device = torch.device(
        "cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else "cpu"
    )
    torch.manual_seed(0)
    encoder, decoder = (part.to(device) for part in _networks(problem, weights))
    optimizer = torch.optim.Adam(
        [*encoder.parameters(), *decoder.parameters()], LEARNING_RATE, fused=compiled or None
    )
    data = torch.tensor(_channels_first(problem, problem.pixels), device=device)

    loss_at = _make_loss(problem, encoder, decoder)

    def loss_of(pixels: Any) -> Any:
        return loss_at(torch.bernoulli(pixels.float() / 255))

    loss_of = torch.compile(loss_of) if compiled else loss_of
    position = 0
    order = data.new_empty(0)

    def steps(num_steps: int) -> float:
        nonlocal position, order
        total = torch.zeros((), device=device)
        for _ in range(num_steps):
            if position == 0:
                order = torch.randperm(len(data), device=device)
                order = torch.cat([order, order[: -len(data) % problem.batch_size]]).view(
                    -1, problem.batch_size
                )
            optimizer.zero_grad()
            loss = loss_of(data[order[position]])
            loss.backward()
            optimizer.step()
            total += loss.detach()
            position = (position + 1) % len(order)
        return -float(total) / num_steps

    def loss(x: np.ndarray) -> float:
        with torch.no_grad():
            return float(loss_at(torch.tensor(_channels_first(problem, x), device=device)))

    if compiled:
        _try_compiler(lambda: loss_of(data[: problem.batch_size]).backward())
    return Running(steps, loss)


def _make_loss(problem: Problem, encoder: Any, decoder: Any) -> Callable[[Any], Any]:
    """x [B, ...] in {0, 1} -> loss."""
    import torch
    from torch.nn import functional as F

    k = problem.num_samples

    def loss(x: Any) -> Any:
        loc, log_scale = encoder(x).chunk(2, 1)
        eps = torch.randn_like(loc) if k == 1 else torch.randn(k, *loc.shape, device=loc.device)
        z = loc + log_scale.exp() * eps
        logits = decoder(z.reshape(-1, loc.shape[1])).reshape(*z.shape[:-1], -1)
        log_lik = -F.binary_cross_entropy_with_logits(
            logits, x.flatten(1).expand(logits.shape), reduction="none"
        ).sum(-1)
        if k == 1:
            kl = 0.5 * (loc**2 + (2 * log_scale).exp() - 2 * log_scale - 1).sum()
            return (kl - log_lik.sum()) / len(x)
        log_ratio = 0.5 * (eps**2 - z**2 + 2 * log_scale).sum(-1)
        return -((log_lik + log_ratio).logsumexp(0) - math.log(k)).mean()

    return loss


def _channels_first(problem: Problem, images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)) if problem.conv else images


def _networks(problem: Problem, weights: Weights) -> tuple[Any, Any]:
    """Encoder and decoder with these weights: [..., in, out] becomes [out, in, ...], NHWC becomes
    NCHW.
    """
    from torch import nn

    if problem.conv:
        return _conv_encoder(problem, weights), _conv_decoder(problem, weights)
    last = len(problem.hidden)
    (encoder, decoder) = (
        [
            layer
            for i in range(last + 1)
            for layer in (_dense(weights[f"{part}{i}w"], weights[f"{part}{i}b"]), nn.Tanh())
        ]
        for part in "ed"
    )
    return nn.Sequential(*encoder[:-1]), nn.Sequential(*decoder[:-1])


def _filled(layer: Any, w: np.ndarray, b: np.ndarray) -> Any:
    """The layer, with these parameters."""
    import torch

    with torch.no_grad():
        layer.weight.copy_(torch.tensor(np.ascontiguousarray(w)))
        layer.bias.copy_(torch.tensor(b))
    return layer


def _dense(w: np.ndarray, b: np.ndarray) -> Any:
    from torch import nn

    return _filled(nn.Linear(*w.shape), w.T, b)


def _channels_first_order(problem: Problem) -> np.ndarray:
    """Where each entry of the smallest image, flattened with channels first, is with them last."""
    small = (*problem.smallest, problem.hidden[-1])
    return np.arange(math.prod(small)).reshape(small).transpose(2, 0, 1).ravel()


def _conv_encoder(problem: Problem, weights: Weights) -> Any:
    from torch import nn

    last = len(problem.hidden)
    sizes = problem.x_shape[:2]  # rows and columns of the image so far
    layers: list[Any] = []
    for i in range(last):
        w = weights[f"e{i}w"]
        layer = nn.Conv2d(w.shape[2], w.shape[3], 3, stride=2)
        (top, left) = (size % 2 for size in sizes)  # as padding SAME has it, for a kernel of 3
        layers += [
            nn.ZeroPad2d((left, 1, top, 1)),
            _filled(layer, w.transpose(3, 2, 0, 1), weights[f"e{i}b"]),
            nn.GELU(approximate="tanh"),
        ]
        sizes = tuple(-(-size // 2) for size in sizes)
    w = weights[f"e{last}w"][_channels_first_order(problem)]
    return nn.Sequential(*layers, nn.Flatten(), _dense(w, weights[f"e{last}b"]))


def _conv_decoder(problem: Problem, weights: Weights) -> Any:
    from torch import nn

    last = len(problem.hidden)
    order = _channels_first_order(problem)
    layers: list[Any] = [
        _dense(weights["d0w"][:, order], weights["d0b"][order]),
        nn.Unflatten(1, (problem.hidden[-1], *problem.smallest)),
    ]
    for i in range(1, last + 1):
        w = weights[f"d{i}w"]
        # JAX does not flip its kernel, this does
        layer = nn.ConvTranspose2d(w.shape[2], w.shape[3], 3, stride=2)
        layers += [
            nn.GELU(approximate="tanh"),
            _filled(layer, w[::-1, ::-1].transpose(2, 3, 0, 1), weights[f"d{i}b"]),
            nn.ZeroPad2d((0, -1, 0, -1)),
        ]
    (below, right) = (
        size - (least << last)
        for size, least in zip(problem.x_shape[:2], problem.smallest, strict=True)
    )  # negative: cropped
    return nn.Sequential(*layers, nn.ZeroPad2d((0, right, 0, below)), nn.Flatten())


def _try_compiler(call: Callable[[], object]) -> None:
    try:
        call()
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise NotAvailable(f"torch.compile failed: {reason}") from error


TORCH_EAGER = Contender(
    "PyTorch eager", "`torch.optim.Adam` as it comes", partial(start_torch, compiled=False)
)
TORCH_COMPILED = Contender(
    "PyTorch compiled", "`torch.compile`, fused Adam", partial(start_torch, compiled=True)
)
