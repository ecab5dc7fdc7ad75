"""A linter for an ELBO: finds what makes it wrong without an error, before a run is spent on it.

    report = vi.check(key, log_joint, q)          # or batch=..., num_data=N: see `check`
    print(report)

Each finding names what was seen, its numbers and the remedy. Most tests are exact (additivity over
rows, autodiff against differences in float64); the statistical ones flag only what two independent
sets of samples show beyond a threshold that a correct model passes once in 1e5 each. What cannot be
decided from what was given is listed, not guessed.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax.arguments import as_count, as_key, require_function, require_guide
from vi_jax.checks import (
    detached,
    frequencies,
    gradients,
    normalisation,
    params,
    rows,
    stein,
    tails,
    values,
)
from vi_jax.checks.problem import (
    Problem,
    Space,
    is_discrete,
    make_space,
    support_of,
    wide_context,
    widened,
    with_draws,
)
from vi_jax.checks.report import Finding, Outcome, Report, undecided
from vi_jax.types import Array, Params

__all__ = ["CHECKS", "FINDINGS", "Finding", "Report", "check"]

FINDINGS = {
    "shape": "log_joint or log q is not one floating-point number for one z, or samples are laid "
    "out otherwise than [K, ...]",
    "broadcast": "an [N] meets an [N, 1] in log_joint",
    "random": "log_joint draws from a hidden state",
    "nan": "a value or a gradient is NaN or infinite; names the equation it comes from",
    "support": "q puts mass where the model has none, or cannot reach where it has",
    "gradient": "autodiff in z disagrees with differences in float64",
    "float32": "float32 gets a value or a gradient wrong that float64 has right",
    "sign": "log_joint, its likelihood or its prior has its sign flipped",
    "improper": "log_joint cannot be normalised: a prior or a log-determinant is missing",
    "log_det": "a change of variables in log_joint lacks its log-determinant, or has it wrong",
    "batch_unused": "log_joint does not depend on its batch",
    "rows_mixed": "what one row adds to log_joint depends on the others",
    "mean_not_sum": "the log likelihood is a mean over rows",
    "minibatch_scale": "the log likelihood is not N/B times the sum over the batch",
    "prior_scale": "the prior is scaled with the likelihood, added for each row, or not what "
    "log_prior is",
    "terms_differ": "per_example and log_joint are of two models",
    "sample_log_prob": "sample and log_prob of q are not of one distribution",
    "normalisation": "log q is not normalised",
    "score": "the score of log q in its parameters does not have mean 0",
    "detached": "a parameter moves q while its derivative is exactly 0",
    "unused": "nothing depends on a parameter of q",
}
MIN_SAMPLES = 64
CHECKS = (
    "broadcasting",
    "chance",
    "finite",
    "supports",
    "differences",
    "float32",
    "tails",
    "log_determinant",
    "rows",
    "stein",
    "normalisation",
    "frequencies",
    "score",
    "detached",
)


def check(
    key: Array,
    log_joint: Callable[..., Array],
    q: Any,
    *,
    params: Params | None = None,
    batch: Any = None,
    num_data: int | None = None,
    per_example: Callable[[Any, Any], Array] | None = None,
    log_prior: Callable[[Any], Array] | None = None,
    constrained: tuple[Callable[[Any], Array], Callable[[Any], Any]] | None = None,
    support: Any = None,
    num_samples: int = 2048,
    only: Sequence[str] = (),
) -> Report:
    """Looks for what makes an ELBO wrong without an error; seconds, of which most are compiling.

    Args:
      key: one typed PRNG key.
      log_joint: z -> log p(x, z), nats, a scalar; with `batch`, (z, batch) -> the same.
      q: a guide, any pytree with `sample` and `log_prob`; with `params`, the function params ->
        guide (`Family.guide`).
      params: unconstrained parameters of the guide, a pytree. Adds the checks of the score and of
        unused parameters.
      batch: a pytree of arrays [B, ...], rows that are independent given z. Adds the checks of
        sums, means and mixed rows; log_joint is evaluated at B, and at up to 128 rows that are
        copies of the first 32.
      num_data: N, where the batch is a minibatch and log_joint = log p(z) + (N/B) sum_i log p(x_i |
        z), with B taken from the batch that it is given; not given where the batch is all the data.
      per_example: (z, batch) -> log p(x_i | z), [B]: shows by how much log_joint scales them.
      log_prior: z -> log p(z): shows by how much log_joint scales it (with `per_example`, or where
        the batch is all the data).
      constrained: (log_density, transform): log_joint(u) is claimed to be log_density(transform(u))
        + log |d transform / du|.
      support: of the model's z, a numpyro constraint; and of q where q has none of its own (then a
        pytree will do).
      num_samples: samples of each statistical check.
      only: names out of `CHECKS`, to run a few of them; all if empty. The shapes are always looked
        at.

    Returns:
      A Report: prints as a page, `ok`, `names`, `to_dict()`. What `FINDINGS` lists; each with its
      remedy.

    Raises:
      ValueError: arguments that do not go together. What log_joint or q raise by themselves is not
        caught.
    """
    start = time.perf_counter()
    key = as_key(key, "check")
    (require_guide if params is None else require_function)(q, "check", name="q")
    require_function(log_joint, "check", name="log_joint")
    _require(batch, num_data, per_example, num_samples, only)

    def joint(z: Any, rows: Any) -> Array:
        return log_joint(z) if batch is None else log_joint(z, rows)

    own = params is None
    make_guide = (lambda leaves: leaves) if own else q
    leaves = q if own else params
    problem, notes = _problem(
        Problem(
            key,
            joint,
            batch,
            num_data,
            per_example,
            log_prior,
            constrained,
            support,
            leaves,
            make_guide,
            num_samples,
            discrete=False,
            wide=False,
            space=None,
            draws=np.zeros((0, 0)),
            mean=np.zeros(0),
            scale=np.zeros(0),
        )
    )
    outcomes = {"shapes": values.shapes(problem)}
    chosen = only or CHECKS
    if outcomes["shapes"].findings:
        chosen = ()
        notes = (*notes, "everything else: needs the shapes right first.")
    for name, one in _checks(own).items():
        if name in chosen:
            outcomes[name] = _run(name, one, problem)
    return _report(outcomes, notes, time.perf_counter() - start)


def _report(outcomes: dict[str, Outcome], notes: tuple[str, ...], elapsed: float) -> Report:
    """The outcomes of all checks, by name, as one."""
    findings = [finding for outcome in outcomes.values() for finding in outcome.findings]
    undecided = [note for outcome in outcomes.values() for note in outcome.undecided]
    return Report(tuple(findings), tuple(outcomes), (*notes, *undecided), elapsed)


def _checks(own: bool) -> dict[str, Callable[[Problem], Outcome]]:
    """Every check by name, cheapest first."""
    return {
        "broadcasting": values.broadcasting,
        "chance": values.chance,
        "finite": values.finite,
        "supports": values.supports,
        "differences": gradients.differences,
        "float32": gradients.float32,
        "tails": tails.tails,
        "log_determinant": tails.log_determinant,
        "rows": rows.rows,
        "stein": stein.stein,
        "normalisation": normalisation.normalisation,
        "frequencies": frequencies.frequencies,
        "score": lambda problem: params.score(problem, own=own),
        "detached": lambda problem: detached.detached(problem, own=own),
    }


def _run(name: str, one: Callable[[Problem], Outcome], problem: Problem) -> Outcome:
    """A check, or a note that it could not run: one that fails must not hide what the others
    found.
    """
    try:
        return one(problem)
    except Exception as failure:
        reason = (str(failure).splitlines() or [""])[0][:120]
        return undecided(f"{name}: stopped by {type(failure).__name__}: {reason}")


def _require(
    batch: Any, num_data: int | None, per_example: Any, num_samples: int, only: Sequence[str]
) -> None:
    unknown = sorted(set(only) - set(CHECKS))
    if unknown:
        raise ValueError(f"there are no checks {unknown}; there are {', '.join(CHECKS)}.")
    as_count(num_samples, "num_samples", least=MIN_SAMPLES, what="for trustworthy standard errors")
    if batch is None:
        if num_data is not None or per_example is not None:
            raise ValueError(
                "num_data and per_example are about the rows of a batch: give batch=, and "
                "log_joint(z, batch)."
            )
        return
    sizes = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(batch)}
    if len(sizes) != 1 or () in sizes:
        raise ValueError(
            "batch expects arrays that all begin with the same axis [B]; got leading axes "
            f"{sorted(sizes)}."
        )
    if num_data is not None and num_data < next(iter(sizes))[0]:
        raise ValueError(
            f"num_data is the number of all rows, at least the batch's; got {num_data} and "
            f"{sizes.pop()[0]}."
        )


def _problem(problem: Problem) -> tuple[Problem, tuple[str, ...]]:
    """The problem completed by samples of q: discreteness, coordinates, whether float64 runs."""
    with wide_context(False):
        q = problem.guide
        z = jax.eval_shape(lambda key: q.sample(key), problem.key)
    support = support_of(q, problem.support)
    discrete = is_discrete(z, support)
    space, notes = _space(z, support, discrete)
    size = max(1, sum(leaf.size for leaf in jax.tree.leaves(z)))
    # bounds the memory of large latents
    num_samples = min(problem.num_samples, max(128, 4_000_000 // size))
    problem = problem._replace(discrete=discrete, space=space, num_samples=num_samples)
    failure = _fails_in_float64(problem)
    if failure:
        notes = (
            *notes,
            f"float64: log_joint or q does not run in it ({failure}); checks that need it are "
            "left out.",
        )
    problem = problem._replace(wide=not failure)
    if space is None:
        return problem, notes
    problem = with_draws(problem)
    if problem.space is None:
        notes = (
            *notes,
            "coordinates: samples of q lie on the edge of its support, or are not finite.",
        )
    return problem, notes


def _space(z: Any, support: Any, discrete: bool) -> tuple[Space | None, tuple[str, ...]]:
    if discrete:
        return None, ()
    try:
        return make_space(z, support), ()
    except (NotImplementedError, TypeError, ValueError) as failure:
        return None, (
            f"coordinates: no bijection from the reals to q's support ({failure or support}).",
        )


def _fails_in_float64(problem: Problem) -> str:
    """Why the functions cannot be traced in float64; empty if they can."""
    try:
        with wide_context():
            q = problem.guide
            z = jax.eval_shape(lambda key: widened(q.sample(key)), problem.key)
            jax.eval_shape(lambda z: (problem.joint(z, widened(problem.batch)), q.log_prob(z)), z)
    except Exception as failure:
        return f"{type(failure).__name__}: {(str(failure).splitlines() or [''])[0][:100]}"
    return ""
