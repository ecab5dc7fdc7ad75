"""The result of `vi.fit`: a guide, its importance-weighted samples, and diagnostics."""

import warnings
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax.diagnostics.posterior import WeightedSamples, trusted, verdict
from vi_jax.diagnostics.psis import k_threshold
from vi_jax.fitting import _reliability, _rows
from vi_jax.fitting._numbers import Diagnostics, discrete_of, moments_of
from vi_jax.fitting.details import Details, examine, plain, respond
from vi_jax.fitting.handing_over import HandsOver
from vi_jax.targets.target import Target
from vi_jax.types import Array

_MCMC = 'go on by MCMC (result.continue_with("nuts", key))'


@dataclass(frozen=True)
class Result(HandsOver):
    """A fitted guide, with what is known of it."""

    target: Target
    method: str
    why: str  # this method; empty where the caller chose it
    guide: Any  # over u [D]; of the best start, or of all stacked
    state: Any  # the method's own, of the best start, over the coordinates that it ran in
    history: dict[str, np.ndarray]  # value and evaluations of each step, of the best start
    converged: bool  # it stopped by its own rule
    num_steps: int
    # gradients of the log density, all starts together, those that chose where to start included
    evaluations: int
    skipped: int  # steps that a log density, or arithmetic, which was not finite made useless
    starts: tuple[float, ...]  # ELBO of each start, nats
    # the farthest that a mean lies from the best start's, in its standard deviations
    start_distances: tuple[float, ...]
    start_weights: tuple[float, ...]  # in the answer
    compile_seconds: float
    seconds: float  # all in all
    weighted: WeightedSamples = field(repr=False)
    names: tuple[str, ...] = field(repr=False, default=())
    # locations [P, D] along the path of the only start, and the ELBO there [P], nats
    elsewhere: tuple[np.ndarray, np.ndarray] | None = field(repr=False, default=None)
    fallback: str = ""  # what else was tried, why, and whether it is the answer
    why_draws: str = ""  # fewer samples are weighed than usual; empty where they are not

    @cached_property
    def diagnostics(self) -> Diagnostics:
        """Of the guide against the log density, by importance sampling."""
        w = self.weighted
        num_draws = len(w.u)
        k_hat = float(w.k_hat)
        effective = float(w.effective)
        word, advice = self.by_weights
        num_bad = int(w.num_bad)
        wrong = (
            _reliability.nan_at(self) or _reliability.stuck(self) or self.blurred or self.left_out
        )
        if wrong:
            word = "not reliable"
            advice = wrong
        return Diagnostics(
            verdict=word,
            advice=advice,
            elbo=float(w.elbo),
            elbo_stderr=float(w.elbo_stderr),
            log_evidence=float(w.log_evidence),
            log_evidence_stderr=float(w.log_evidence_stderr),
            k_hat=k_hat,
            k_threshold=k_threshold(num_draws),
            trusted=trusted(k_hat, effective, num_draws) and not wrong,
            effective=effective,
            num_draws=num_draws,
            num_bad=num_bad,
        )

    @property
    def by_weights(self) -> tuple[str, str]:
        """The verdict of the weights alone, and its advice: what they can see."""
        w = self.weighted
        return verdict(
            float(w.k_hat),
            float(w.effective),
            len(w.u),
            converged=self.converged,
            richer=self._richer,
            mcmc=_MCMC,
        )

    @property
    def weighed(self) -> WeightedSamples:
        """The old name of `weighted`."""
        warnings.warn(
            "Result.weighed is now called Result.weighted; the old name goes in vi_jax 0.2.",
            DeprecationWarning,
            stacklevel=2,
        )
        return self.weighted

    @cached_property
    def left_out(self) -> str:
        """What to do where a mode with mass is not in the answer; empty if none was found."""
        return _reliability.left_out(self)

    @cached_property
    def blurred(self) -> str:
        """What to do where a latent's numbers are too large beside its scale for their digits;
        empty if none is.
        """
        return _reliability.blurred(self)

    @property
    def _richer(self) -> str:
        if self.method.startswith("flow"):
            return "give the flow more gradients"
        return "take a richer family (vi.methods.flow)"

    @cached_property
    def details(self) -> Details:
        """Whether the guide is at the optimum of its ELBO and the iterates are stationary, and how
        its scales compare with linear response.

        Costs 1,000 gradients of the log density, and up to 50 latents 200 for each, the first time;
        `print` it to read it.
        """
        return examine(self)

    def linear_response(self, key: Array) -> "Result":
        """The same mean with the covariance by linear response, importance-weighted anew: a Result
        whose guide is a full-rank Gaussian.

        It corrects the scales of mean-field guides, which are too small where latents are
        correlated (Giordano, Broderick & Jordan 2018); its gradients are added to `evaluations`. A
        flow's samples are better than those of this Gaussian.

        Args:
          key: of the samples.

        Raises:
          ValueError: the guide is at no optimum, is a mixture of starts, or is over more than 400
            latents.
        """
        return respond(self, key)

    def sample(self, key: Array, num_draws: int = 1000) -> Any:
        """Samples of the guide in the model's own space, a pytree of sites [num_draws, ...]."""
        return self._constrained(self.guide.sample(key, (num_draws,)))

    def resample(self, key: Array, num_draws: int = 1000) -> Any:
        """Samples from the weighted ones, with replacement: nearer to the posterior than `sample`
        where k-hat is good.

        Raises:
          ValueError: k-hat says that the weights cannot be trusted.
        """
        return self._constrained(self.weighted.u[self._resampled_rows(key, num_draws)])

    def moments(self) -> dict[str, Any]:
        """{"mean", "sd"} of every site, and "corrected": by smoothed importance weights where k-hat
        allows, else of the guide.
        """
        corrected = self.diagnostics.trusted
        log_w = self.weighted.log_weights
        weights = jnp.full(log_w.shape, 1 / len(log_w), log_w.dtype)
        if corrected:
            weights = jnp.exp(log_w)
        mean, sd = moments_of(self.target.constrain, self.weighted.u, weights)
        return {
            "mean": jax.tree.map(np.asarray, mean),
            "sd": jax.tree.map(np.asarray, sd),
            "corrected": bool(corrected),
        }

    def discrete(self) -> dict[str, np.ndarray]:
        """{discrete site: posterior probabilities of its values [*shape, K]}, of the sites that are
        summed out; weighted like `moments`.
        """
        return discrete_of(self)

    def report(self, *, details: bool = True) -> dict[str, Any]:
        """All of it, machine-readable, as strict JSON takes it: numbers, words, lists of them; a
        number that is not finite is None.

        Args:
          details: whether with "details" (`Details`), which cost gradients the first time.
        """
        names = (
            "method",
            "why",
            "fallback",
            "why_draws",
            "converged",
            "num_steps",
            "evaluations",
            "skipped",
            "seconds",
            "compile_seconds",
            "starts",
            "start_distances",
            "start_weights",
        )
        more = {"details": self.details.as_dict()} if details else {}
        return (
            plain({name: getattr(self, name) for name in names} | self.diagnostics._asdict()) | more
        )

    def __str__(self) -> str:
        d = self.diagnostics
        rows = [
            ("method", self.method + (f" ({self.why})" if self.why else "")),
            *([("second method", self.fallback)] if self.fallback else []),
            ("latents", f"{self.target.size:,} unconstrained numbers"),
            ("ELBO", _reliability.elbo_row(self)),
            ("log evidence", _reliability.evidence_row(d)),
            ("k-hat", _reliability.k_hat_row(d)),
            ("effective samples", _reliability.effective_row(self)),
            ("gradient evaluations", f"{self.evaluations:,} in {self.num_steps:,} steps"),
            ("time", f"{self.seconds:.1f} s, of which compiling {self.compile_seconds:.1f} s"),
        ]
        if len(self.starts) > 1:
            rows.append(("starts", _reliability.starts_row(self)))
        if self.skipped or d.num_bad:
            rows.append(
                ("not finite", f"{self.skipped:,} steps skipped, {d.num_bad:,} samples of weight 0")
            )
        rows += [("verdict", d.verdict), ("next", d.advice)]
        return _rows.lines(rows)

    def __repr__(self) -> str:
        return str(self)  # what a notebook shows

    def _best_draws(self, key: Array, num_draws: int) -> Any:
        sample = self.resample if self.diagnostics.trusted else self.sample
        return sample(key, num_draws)

    def _resampled_rows(self, key: Array, num_draws: int) -> Array:
        """Rows of the weighted samples, with replacement."""
        if not self.diagnostics.trusted:
            raise ValueError(
                f"the weights cannot be trusted (k-hat {self.diagnostics.k_hat:.2f}); "
                f"{self.diagnostics.advice}"
            )
        return jax.random.categorical(key, self.weighted.log_weights, shape=(num_draws,))

    def _constrained(self, u: Array) -> Any:
        return jax.jit(jax.vmap(self.target.constrain))(u)
