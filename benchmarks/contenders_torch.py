"""The same VAE in PyTorch, eager and compiled, its data on its device too."""

import importlib.util
from collections.abc import Callable
from functools import partial

import jax

from benchmarks.problem import LEARNING_RATE, Contender, NotAvailable, Problem


def start_torch(problem: Problem, *, compiled: bool) -> Callable[[int], float]:
    """`nn.Linear` layers, `torch.optim.Adam`; rows shuffled, pixels gathered and binarised on the device.

    Compiled, the loss and its gradient go through `torch.compile`, and Adam takes its fused form.

    Raises:
      NotAvailable: PyTorch is not installed, or cannot compile here.
    """
    if importlib.util.find_spec("torch") is None:
        raise NotAvailable("PyTorch is not installed; `pip install torch` adds this row")
    import torch
    from torch import nn
    from torch.nn import functional as F

    device = torch.device("cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    hidden, latents = problem.num_hidden, problem.num_latents
    encoder = nn.Sequential(nn.Linear(problem.num_pixels, hidden), nn.Tanh(), nn.Linear(hidden, 2 * latents)).to(device)
    decoder = nn.Sequential(nn.Linear(latents, hidden), nn.Tanh(), nn.Linear(hidden, problem.num_pixels)).to(device)
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], LEARNING_RATE, fused=compiled or None)
    data = torch.tensor(problem.pixels, device=device)

    def loss_of(pixels):
        x = torch.bernoulli(pixels.float() / 255)
        loc, log_scale = encoder(x).chunk(2, 1)
        z = loc + log_scale.exp() * torch.randn_like(loc)
        log_lik = -F.binary_cross_entropy_with_logits(decoder(z), x, reduction="sum")
        kl = 0.5 * (loc**2 + (2 * log_scale).exp() - 2 * log_scale - 1).sum()
        return (kl - log_lik) / len(x)

    loss_of = torch.compile(loss_of) if compiled else loss_of
    position = 0
    order = data.new_empty(0)

    def steps(num_steps: int) -> float:
        nonlocal position, order
        total = torch.zeros((), device=device)
        for _ in range(num_steps):
            if position == 0:
                order = torch.randperm(len(data), device=device)
                order = torch.cat([order, order[: -len(data) % problem.batch_size]]).view(-1, problem.batch_size)
            optimizer.zero_grad()
            loss = loss_of(data[order[position]])
            loss.backward()
            optimizer.step()
            total += loss.detach()
            position = (position + 1) % len(order)
        return -float(total) / num_steps

    if compiled:
        _try_compiler(lambda: loss_of(data[: problem.batch_size]).backward())
    return steps


def _try_compiler(call: Callable[[], object]) -> None:
    try:
        call()
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise NotAvailable(f"torch.compile failed: {reason}") from error


TORCH_EAGER = Contender("PyTorch eager", "`torch.optim.Adam` as it comes", partial(start_torch, compiled=False))
TORCH_COMPILED = Contender("PyTorch compiled", "`torch.compile`, fused Adam", partial(start_torch, compiled=True))
