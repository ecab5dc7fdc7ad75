"""Details of a result: the gradient of the ELBO, stationarity, and scales by linear response."""

import time
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from vi_jax import linalg
from vi_jax.diagnostics.optimum import Slopes, rest, slopes
from vi_jax.diagnostics.posterior import importance_sample
from vi_jax.fitting import _rows
from vi_jax.fitting._coordinates import as_fitted, in_model
from vi_jax.fitting._stack import Stack
from vi_jax.kl.gaussians import is_gaussian_vector
from vi_jax.methods import frequentist_stderr, linear_response_of_draws
from vi_jax.methods.dadvi import State as DadviState
from vi_jax.methods.pathfinder import FactoredNormal
from vi_jax.optimise.step_size import Schedule
from vi_jax.types import Array

SLOPE_DRAWS = 1000  # gradients
RESPONSE_DRAWS = 50
RESPONSE_UP_TO = 50  # latents whose linear response is a part of the details
MAX_GRADIENT = 1.0  # of the ELBO's gradient, nats per standard deviation
SMALLEST_SLOPE = 5e-4  # nats per SD, that three digits show
WHOLE_UP_TO = 400  # latents whose whole covariance is taken at all


class Details(NamedTuple):
    """Beyond `Diagnostics`; arrays are over the unconstrained latents, named by `names`."""

    names: tuple[str, ...]
    location_gradient: np.ndarray  # [D], of the ELBO, nats per standard deviation of the guide
    location_z: np.ndarray  # [D], over its standard error
    log_scale_gradient: np.ndarray  # [D], nats
    log_scale_z: np.ndarray  # [D]
    signal_to_noise: float  # of one sample's gradient
    iterates: str  # what the next two are of; empty where nothing was noisy
    r_hat: float
    mcse: float  # Monte Carlo standard error of their average
    mcse_units: str
    # [D], standard errors of the locations by the few samples of DADVI, in its SDs; empty for
    # other methods
    draws_error: np.ndarray
    # [D], standard deviations by linear response over the guide's; nan where there are none
    response_ratio: np.ndarray
    response_why: str  # why there are none
    evaluations: int  # gradients of the log density that all this took

    def as_dict(self) -> dict[str, Any]:
        """Machine-readable: lists, numbers and words; a number that is not finite is None."""
        return plain(self._asdict())

    @property
    def _off(self) -> float:
        return float(
            max(np.abs(self.location_gradient).max(), np.abs(self.log_scale_gradient).max())
        )

    def __str__(self) -> str:
        rows = [
            (
                "ELBO's gradient",
                f"location {_worst(self.location_gradient, self.location_z, self.names)}, nats "
                "per SD",
            ),
            ("", f"log scale {_worst(self.log_scale_gradient, self.log_scale_z, self.names)}"),
            (
                "signal to noise",
                f"{self.signal_to_noise:.3f} of a sample's gradient; 0 at the optimum",
            ),
        ]
        if self.iterates:
            error = f"Monte Carlo error {self.mcse:.2g} {self.mcse_units}"
            rows.append(("stationarity", f"R-hat {self.r_hat:.2f}, {error}, of {self.iterates}"))
        if self.draws_error.size:
            worst = int(np.argmax(self.draws_error))
            rows.append(
                (
                    "few samples",
                    f"standard errors of means up to {self.draws_error[worst]:.2f} "
                    f"({self.names[worst]}) of the guide's SDs",
                )
            )
        rough = "; rough, as the guide is off its optimum" if self._off > MAX_GRADIENT else ""
        scales = f"SDs {_range(self.response_ratio, self.names)} times the guide's{rough}"
        rows.append(("linear response", self.response_why or scales))
        rows.append(("these took", f"{self.evaluations:,} gradients"))
        return _rows.lines(rows)

    def __repr__(self) -> str:
        return str(self)  # what a notebook shows


@linalg.one_blas_thread()
def examine(result: Any) -> Details:
    """The details of a result, from samples that it holds: gradients at 1,000 of them, and 2 x 50
    for each of 2 D parameters; in the coordinates that it was fitted in.
    """
    result = as_fitted(result)
    u = result.weighted.u[:SLOPE_DRAWS]
    slope = jax.tree.map(
        np.asarray, jax.jit(partial(slopes, result.target.log_density))(result.guide, u)
    )
    ratio, why, spent = _response_ratio(result)
    error, spent_too = _draws_error(result)
    return Details(
        names=tuple(result.target.names),
        **_named(slope),
        **_stationarity(result),
        draws_error=error,
        response_ratio=ratio,
        response_why=why,
        evaluations=len(u) + spent + spent_too,
    )


def _draws_error(result: Any) -> tuple[np.ndarray, int]:
    """`frequentist_stderr` of a run of DADVI in its standard deviations, [D], and the gradients
    that it took; else nothing.
    """
    state = result.state
    if not isinstance(state, DadviState) or result.target.size > RESPONSE_UP_TO:
        return np.zeros(0), 0
    error = jax.jit(partial(frequentist_stderr, result.target.log_density))(state)
    return np.asarray(error / jnp.exp(state.log_scale)), (4 * result.target.size + 1) * len(
        state.draws
    )


def _stationarity(result: Any) -> dict[str, Any]:
    """Of the parameters where the method averages late ones, else of its values."""
    schedules = [
        part for part in jax.tree.leaves(result.state, is_leaf=_is_schedule) if _is_schedule(part)
    ]
    if schedules and schedules[0].r_hat > 0:
        r_hat = float(schedules[0].r_hat)
        mcse = float(schedules[0].mcse)
        return {
            "iterates": "the parameters that are averaged",
            "r_hat": r_hat,
            "mcse": mcse,
            "mcse_units": "SD",
        }
    still = rest(result.history["value"])
    of = "" if np.isnan(still.r_hat) else f"the last {still.num:,} values of the method"
    return {"iterates": of, "r_hat": still.r_hat, "mcse": still.mcse, "mcse_units": "nats"}


def _is_schedule(part: Any) -> bool:
    return isinstance(part, Schedule)


@linalg.one_blas_thread()
def respond(result: Any, key: Array) -> Any:
    """`Result.linear_response`."""
    return in_model(_respond(as_fitted(result), key), result.target)


def _respond(result: Any, key: Array) -> Any:
    began = time.perf_counter()
    if result.target.size > WHOLE_UP_TO:
        raise ValueError(
            f"linear_response takes a whole covariance, up to {WHOLE_UP_TO} latents; got "
            f"{result.target.size}. Take the rows of interest, vi.methods.linear_response_of_draws("
            "target.log_density, result.weighted.u[:50], which)."
        )
    mean, covariance, spent = _covariance(result)
    if not np.all(np.isfinite(covariance)) or not _positive(covariance):
        raise ValueError(
            "linear response needs a guide at the optimum of its ELBO, where the Hessian is "
            f"positive definite; that of {result.method} is not ({result.diagnostics.verdict}): "
            f"{result.diagnostics.advice}"
        )
    root = np.linalg.cholesky(covariance)
    q = dist.MultivariateNormal(jnp.asarray(mean), scale_tril=jnp.asarray(root))
    num_draws = len(result.weighted.u)
    sample = partial(importance_sample, log_density=result.target.log_density, num_draws=num_draws)
    weighted = jax.jit(sample)(key, q=q)
    return replace(
        result,
        method=f"{result.method} with linear response",
        guide=q,
        weighted=jax.block_until_ready(weighted),
        evaluations=result.evaluations + spent,
        seconds=result.seconds + time.perf_counter() - began,
    )


def _covariance(result: Any) -> tuple[np.ndarray, np.ndarray, int]:
    """Mean [D] and covariance [D, D] by linear response, and the gradients they took."""
    density = result.target.log_density
    size = result.target.size
    if isinstance(result.guide, Stack):
        raise ValueError(
            "linear response is of one guide at its optimum; this is a mixture of several starts."
        )
    u = result.weighted.u[:RESPONSE_DRAWS]
    covariance = np.asarray(jax.jit(partial(linear_response_of_draws, density))(u))
    mean = getattr(result.guide, "mean", None)
    if mean is None:
        mean = result.weighted.u.mean(0)
    return np.asarray(mean), 0.5 * (covariance + covariance.T), 2 * len(u) * 2 * size


def _response_ratio(result: Any) -> tuple[np.ndarray, str, int]:
    """Standard deviations by linear response over the guide's, [D]; or why not; and the gradients
    that it took.
    """
    nothing = np.full(result.target.size, np.nan)
    if not (is_gaussian_vector(result.guide) or isinstance(result.guide, FactoredNormal)):
        return nothing, "none for a guide that is not one Gaussian", 0
    if result.target.size > RESPONSE_UP_TO:
        return (
            nothing,
            f"not computed here over {RESPONSE_UP_TO} latents: `linear_response(key)`",
            0,
        )
    _, covariance, spent = _covariance(result)
    variance = np.diag(covariance)
    if not np.all(variance > 0):  # nan too
        return nothing, "none: the guide is at no optimum of its ELBO", spent
    return np.sqrt(variance) / np.asarray(result.weighted.u).std(0), "", spent


def _positive(covariance: np.ndarray) -> bool:
    return bool(np.linalg.eigvalsh(covariance).min() > 0)


def _named(slope: Slopes) -> dict[str, Any]:
    return {
        "location_gradient": slope.location,
        "location_z": slope.location_z,
        "log_scale_gradient": slope.log_scale,
        "log_scale_z": slope.log_scale_z,
        "signal_to_noise": float(slope.signal_to_noise),
    }


def _worst(gradient: np.ndarray, z: np.ndarray, names: tuple[str, ...]) -> str:
    worst = int(np.argmax(np.abs(gradient)))
    if abs(gradient[worst]) < SMALLEST_SLOPE:  # rounding, however many of its own errors
        return f"below {SMALLEST_SLOPE:g} everywhere"
    return (
        f"{gradient[worst]:+.3f} ({names[worst]}, {abs(z[worst]):.1f} standard errors) at the most"
    )


def _range(ratio: np.ndarray, names: tuple[str, ...]) -> str:
    low = int(np.argmin(ratio))
    high = int(np.argmax(ratio))
    return f"{ratio[low]:.2f} ({names[low]}) .. {ratio[high]:.2f} ({names[high]})"


def plain(value: Any) -> Any:
    """A tree of arrays, tuples, numbers and words as strict JSON has it: lists and dictionaries;
    what is not finite is None.
    """
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
