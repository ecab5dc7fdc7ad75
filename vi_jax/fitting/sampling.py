"""Markov chains that go on from a guide, and a word on whether they have mixed."""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin
from numpyro.infer import MCMC, NUTS

from vi_jax.fitting import _rows
from vi_jax.fitting.warm_start import begin_chains
from vi_jax.targets.target import Target
from vi_jax.types import Array

MAX_R_HAT = 1.01  # Vehtari et al. 2021
MIN_EFFECTIVE = 400.0  # likewise, of all chains


@dataclass(frozen=True)
class Chains:
    """Draws of Markov chains, and what is known of them."""

    target: Target
    u: Array = field(repr=False)  # [chains, draws, D], unconstrained
    r_hat: float  # the worst latent's, rank-free, of split chains
    effective: float  # the fewest effective draws of a latent
    num_divergent: int
    # of the guide's mean from the chains', the worst latent, in the chains' standard deviations
    guide_distance: float
    guide_scale: float  # the worst ratio of a standard deviation of the guide to the chains'

    @property
    def verdict(self) -> str:
        """'reliable' or 'not reliable'."""
        return "reliable" if not self.advice else "not reliable"

    @property
    def advice(self) -> str:
        """What to do next; empty where the chains can be used."""
        if self.num_divergent:
            return (
                f"{self.num_divergent:,} transitions diverged: reparameterise (non-centre a "
                "hierarchy), or ask for a higher acceptance (target_accept=0.95)."
            )
        if not self.r_hat < MAX_R_HAT:
            return (
                f"R-hat {self.r_hat:.3f} is not under {MAX_R_HAT}: the chains have not mixed; take "
                "more draws, or look for modes that they do not share."
            )
        if not self.effective > MIN_EFFECTIVE:
            return f"{self.effective:,.0f} effective draws are few: take more."
        return ""

    def sample(self) -> Any:
        """All draws in the model's own space, a pytree of sites [chains * draws, ...]."""
        flat = self.u.reshape(-1, self.u.shape[-1])
        return jax.jit(jax.vmap(self.target.constrain))(flat)

    def moments(self) -> dict[str, Any]:
        """{"mean", "sd"} of every site."""
        z = self.sample()
        return {
            "mean": jax.tree.map(lambda leaf: np.asarray(jnp.mean(leaf, 0)), z),
            "sd": jax.tree.map(lambda leaf: np.asarray(jnp.std(leaf, 0)), z),
        }

    def __str__(self) -> str:
        num_chains, num_draws, size = self.u.shape
        rows = [
            ("chains", f"{num_chains} of {num_draws:,} draws of {size:,} unconstrained numbers"),
            ("R-hat, worst", f"{self.r_hat:.3f}"),
            ("effective, fewest", f"{self.effective:,.0f}"),
            ("divergent", f"{self.num_divergent:,}"),
            (
                "guide's mean",
                f"within {self.guide_distance:.2f} standard deviations of the chains'",
            ),
            ("guide's scale", f"{self.guide_scale:.2f} of the chains', at worst"),
            ("verdict", self.verdict),
            ("next", self.advice or "none needed."),
        ]
        return _rows.lines(rows)

    def __repr__(self) -> str:
        return str(self)  # what a notebook shows


def continue_with_nuts(
    target: Target,
    guide_draws: Array,
    key: Array,
    *,
    num_chains: int = 2,
    num_warmup: int = 500,
    num_draws: int = 1000,
    target_accept: float = 0.8,
) -> Chains:
    """NumPyro's no-U-turn sampler (Hoffman & Gelman 2014) from draws of a guide, with the guide's
    covariance as its first inverse mass matrix.

    Args:
      target: whose density is sampled.
      guide_draws: [S, D], of the guide.
      key: of the chains.
      num_chains: run side by side, each from a draw of its own.
      num_warmup: transitions that adapt step and mass matrix, and are left out.
      num_draws: of each chain.
      target_accept: the acceptance that the step is adapted to.

    Raises:
      ValueError: fewer draws of the guide than chains, or a size that is not positive.
    """
    if num_chains < 1 or num_draws < 4 or num_warmup < 1:
        raise ValueError(
            "continue_with expects at least 1 chain, 1 transition of warm-up and 4 draws; got "
            f"num_chains {num_chains}, num_warmup {num_warmup} and num_draws {num_draws}."
        )
    key_starts, key_chains = jax.random.split(key)
    start = begin_chains(target, guide_draws, key_starts, num_chains)
    kernel = NUTS(potential_fn=start.potential, target_accept_prob=target_accept, **start.options)
    chains = MCMC(
        kernel,
        num_warmup=num_warmup,
        num_samples=num_draws,
        num_chains=num_chains,
        chain_method="vectorized",
        progress_bar=False,
    )
    with jax.debug_key_reuse(False):  # its check takes NumPyro's own loop for a reuse
        chains.run(key_chains, init_params=start.positions, extra_fields=("diverging",))
    u = chains.get_samples(group_by_chain=True)
    return _described(target, u, guide_draws, chains.get_extra_fields()["diverging"])


def _described(target: Target, u: Array, guide_draws: Array, diverging: Array) -> Chains:
    """The draws with R-hat, effective sizes, and how far the guide was from them."""
    values = np.asarray(u, np.float64)
    mean = values.mean((0, 1))
    scale = values.std((0, 1))
    guide = np.asarray(guide_draws, np.float64)
    ratios = guide.std(0) / scale
    worst = np.argmax(np.abs(np.log(ratios)))
    return Chains(
        target,
        u,
        r_hat=float(np.max(split_gelman_rubin(values))),
        effective=float(np.min(effective_sample_size(values))),
        num_divergent=int(np.sum(diverging)),
        guide_distance=float(np.max(np.abs(guide.mean(0) - mean) / scale)),
        guide_scale=float(ratios[worst]),
    )
