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
    import torch
    from torch import nn

    last = len(problem.hidden)
    act = (lambda: nn.GELU(approximate="tanh")) if problem.conv else nn.Tanh

    def filled(layer: Any, w: np.ndarray, b: np.ndarray) -> Any:
        with torch.no_grad():
            layer.weight.copy_(torch.tensor(np.ascontiguousarray(w)))
            layer.bias.copy_(torch.tensor(b))
        return layer

    def dense(name: str, w: np.ndarray | None = None, b: np.ndarray | None = None) -> Any:
        w = weights[f"{name}w"] if w is None else w
        b = weights[f"{name}b"] if b is None else b
        return filled(nn.Linear(*w.shape), w.T, b)

    if not problem.conv:
        layers = [
            [layer for i in range(last + 1) for layer in (dense(f"{part}{i}"), act())][:-1]
            for part in "ed"
        ]
        return nn.Sequential(*layers[0]), nn.Sequential(*layers[1])

    height, width, _ = problem.x_shape
    small = (height >> last, width >> last, problem.hidden[-1])
    to_channels_first = np.arange(math.prod(small)).reshape(small).transpose(2, 0, 1).ravel()
    encoder: list[Any] = []
    for i in range(last):
        w = weights[f"e{i}w"]
        b = weights[f"e{i}b"]
        layer = nn.Conv2d(w.shape[2], w.shape[3], 3, stride=2)
        encoder += [nn.ZeroPad2d((0, 1, 0, 1)), filled(layer, w.transpose(3, 2, 0, 1), b), act()]
    encoder += [nn.Flatten(), dense(f"e{last}", weights[f"e{last}w"][to_channels_first])]
    decoder: list[Any] = [
        dense("d0", weights["d0w"][:, to_channels_first], weights["d0b"][to_channels_first]),
        nn.Unflatten(1, (small[2], *small[:2])),
    ]
    for i in range(1, last + 1):
        w = weights[f"d{i}w"]
        b = weights[f"d{i}b"]
        # JAX does not flip its kernel, this does
        layer = nn.ConvTranspose2d(w.shape[2], w.shape[3], 3, stride=2)
        decoder += [
            act(),
            filled(layer, w[::-1, ::-1].transpose(2, 3, 0, 1), b),
            nn.ZeroPad2d((0, -1, 0, -1)),
        ]
    return nn.Sequential(*encoder), nn.Sequential(*decoder, nn.Flatten())


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
