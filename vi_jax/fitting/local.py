"""`vi.fit` where rows have latents of their own."""

import time
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax.diagnostics.posterior import Weighed, trusted, verdict
from vi_jax.diagnostics.psis import k_threshold
from vi_jax.diagnostics.rows import k_hats, weigh_shared
from vi_jax.fitting._compile import Program, compiled, quick_loops
from vi_jax.fitting._watch import Blocks, OnPhase, Report, silently
from vi_jax.fitting.details import plain
from vi_jax.fitting.result import as_inference
from vi_jax.methods.local_advi import LocalGuide, LocalMethod, local_advi
from vi_jax.targets.local import LocalTarget
from vi_jax.targets.target import TargetError
from vi_jax.types import Array

MARGINAL = 1_000  # rows up to which they are integrated out of theta's weights
ROW_DRAWS = 16  # of each row, for each draw of theta
CHECKED = 1_000  # rows whose k-hats are computed, at most
K_HAT_DRAWS = 1_000
ELBO_BATCHES = 200
FEW_BAD = 0.01  # share of rows with a bad k-hat that is let pass


class LocalDiagnostics(NamedTuple):
    """What is known of how good the answer is; numbers in nats, None where it was not computed."""

    verdict: str
    advice: str
    elbo: float
    elbo_stderr: float
    row_k_hat: float  # the 99 % quantile over the rows that were checked, of z_n given theta
    rows_bad: float  # share of those rows whose k-hat is not under the threshold
    rows_checked: int
    rows_never_visited: int
    k_hat: float | None  # of theta, rows integrated out
    effective: float | None
    log_evidence: float | None
    log_evidence_stderr: float | None
    trusted: bool  # whether theta's moments by weights can be trusted


class Checks(NamedTuple):
    """Arrays behind the diagnostics."""

    elbos: Array  # [200], of random batches
    row_k_hats: Array  # [R]
    shared: Weighed | None  # draws of theta with their weights


@dataclass(frozen=True)
class LocalResult:
    """A fitted guide q(theta) prod_n q(z_n | theta), with what is known of it."""

    target: LocalTarget
    method: str
    guide: LocalGuide
    state: Any
    history: dict[str, np.ndarray]  # value of each step
    converged: bool
    num_steps: int
    compile_seconds: float
    seconds: float
    checks: Checks = field(repr=False)

    @property
    def diagnostics(self) -> LocalDiagnostics:
        """Of theta's guide with the rows integrated out, where they are few, and of a sample of the
        rows'.
        """
        k = np.asarray(self.checks.row_k_hats)
        shared = self.checks.shared
        bad = float(np.mean(~(k < k_threshold(K_HAT_DRAWS))))
        numbers = (
            None
            if shared is None
            else (float(shared.k_hat), float(shared.effective), len(shared.u))
        )
        word, advice = _verdict(
            bad, numbers, converged=self.converged, num_rows=self.target.num_rows
        )
        elbos = np.asarray(self.checks.elbos, np.float64)
        return LocalDiagnostics(
            verdict=word,
            advice=advice,
            elbo=float(elbos.mean()),
            elbo_stderr=float(elbos.std() / len(elbos) ** 0.5),
            row_k_hat=float(np.quantile(k, 0.99, method="higher")),  # no -inf between numbers
            rows_bad=bad,
            rows_checked=len(k),
            rows_never_visited=int(np.sum(~np.asarray(self.guide.visited))),
            k_hat=None if shared is None else float(shared.k_hat),
            effective=None if shared is None else float(shared.effective),
            log_evidence=None if shared is None else float(shared.log_evidence),
            log_evidence_stderr=None if shared is None else float(shared.log_evidence_stderr),
            trusted=numbers is not None and trusted(*numbers),
        )

    def sample(self, key: Array, num_draws: int = 1000, *, rows: Any = None) -> tuple[Any, Any]:
        """Draws of theta, leaves [num_draws, ...], and with them of z, leaves [num_draws, R, ...].

        Args:
          rows: numbers of the rows whose z are asked for, [R]; all N if not given.
        """
        index = (
            jnp.arange(self.target.num_rows)
            if rows is None
            else jnp.asarray(rows, jnp.int32).reshape(-1)
        )
        key_u, key_v = jax.random.split(key)
        u = self.guide.shared.sample(key_u, (num_draws,))
        batches = _filled(index, self.target.batch_size)

        def one(args: tuple[Array, Array]) -> Any:
            key, u = args

            def rows_of(batch: tuple[Array, Array]) -> Any:
                key, picked = batch
                return self.target.constrain_rows(
                    u, self.guide.sample_rows(key, self.target, u, picked), picked
                )

            z = jax.lax.map(rows_of, (jax.random.split(key, len(batches)), batches))
            return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[: len(index)], z)

        theta = jax.jit(jax.vmap(self.target.constrain))(u)
        return theta, jax.jit(partial(jax.lax.map, one))((jax.random.split(key_v, num_draws), u))

    def moments(self, key: Array, num_draws: int = 1000, *, rows: Any = None) -> dict[str, Any]:
        """{"mean", "sd"} of theta's sites, "row_mean" and "row_sd" of the rows' (all, or those
        asked for), and "corrected": theta's by smoothed importance weights where they can be
        trusted. The rows' are the guide's.
        """
        theta, z = self.sample(key, num_draws, rows=rows)
        weights = jnp.full(num_draws, 1 / num_draws)
        shared = self.checks.shared
        corrected = self.diagnostics.trusted
        if corrected and shared is not None:
            theta = jax.jit(jax.vmap(self.target.constrain))(shared.u)
            weights = jnp.exp(shared.log_weights)
        mean = jax.tree.map(lambda x: jnp.tensordot(weights, x, 1), theta)
        sd = jax.tree.map(
            lambda x, m: jnp.sqrt(jnp.tensordot(weights, (x - m) ** 2, 1)), theta, mean
        )
        rows_of = {
            "row_mean": jax.tree.map(lambda x: x.mean(0), z),
            "row_sd": jax.tree.map(lambda x: x.std(0), z),
        }
        return jax.tree.map(np.asarray, {"mean": mean, "sd": sd, **rows_of}) | {
            "corrected": corrected
        }

    def to_arviz(self, key: Array | None = None, num_draws: int = 1000, *, rows: Any = None) -> Any:
        """An ArviZ InferenceData with draws of the guide as one chain, theta's sites and the rows'
        [1, num_draws, R, ...], and the diagnostics as its attributes.

        Args:
          key: of the draws, `jax.random.key(0)` if not given.
          rows: as for `sample`.
        """
        theta, z = self.sample(jax.random.key(0) if key is None else key, num_draws, rows=rows)
        sites = [
            tree if isinstance(tree, dict) else {name: tree}
            for name, tree in (("theta", theta), ("z", z))
        ]
        return as_inference(sites[0] | sites[1], self.method, self.diagnostics)

    def report(self) -> dict[str, Any]:
        """What is known, machine-readable, as strict JSON takes it: numbers and words; a number
        that is not finite is None.
        """
        names = ("method", "converged", "num_steps", "seconds", "compile_seconds")
        return plain({name: getattr(self, name) for name in names} | self.diagnostics._asdict())

    def __str__(self) -> str:
        d = self.diagnostics
        t = self.target
        k_theta = (
            "not computed"
            if d.k_hat is None
            else f"{d.k_hat:.2f}, {d.effective:,.0f} effective draws"
        )
        lines = [
            ("method", self.method),
            (
                "latents",
                f"{t.size:,} shared and {t.local_size:,} for each of {t.num_rows:,} rows, "
                f"{t.batch_size:,} rows at a time",
            ),
            ("ELBO", f"{d.elbo:,.3f} ± {d.elbo_stderr:.3f} nats"),
            ("k-hat of theta", f"{k_theta} (rows integrated out; up to {MARGINAL:,} rows)"),
            (
                "k-hat of rows",
                f"{d.row_k_hat:.2f} at 99 %, {d.rows_bad:.1%} bad, of {d.rows_checked:,} rows, "
                "given theta",
            ),
            ("steps", f"{self.num_steps:,}; {d.rows_never_visited:,} rows never seen"),
            ("time", f"{self.seconds:.1f} s, of which compiling {self.compile_seconds:.1f} s"),
            ("verdict", d.verdict),
            ("next", d.advice),
        ]
        return "\n".join(f"{name:<21}{text}" for name, text in lines)


class Loop(NamedTuple):
    """Carried from step to step; without history of the table."""

    state: Any
    values: Array  # [num_steps]
    done: Array
    step: Array


def fit_local(
    key: Array,
    target: LocalTarget,
    method: Any = None,
    *,
    start: Array | None = None,
    num_draws: int = 4000,
    report: Report | None = None,
    report_every: int | None = 100,
    on_phase: OnPhase | None = None,
) -> LocalResult:
    """`vi.fit` of a LocalTarget: runs the method in one compiled loop, whose steps cost the same
    for any number of rows.

    Args:
      key: one typed PRNG key.
      target: from `vi.targets.from_local_rows`, or `from_numpyro` of a model whose subsampled plate
        holds latent sites.
      method: `vi.methods.local_advi(...)`; with its defaults if not given.
      start: of theta, u [D]; 0 if not given.
      num_draws: of theta, weighed at the end where rows are few.
      report, report_every, on_phase: as for `vi.fit`; the value is the mean of the steps since the
        last report.

    Raises:
      TargetError: the log density is not finite at the start.
      FloatingPointError: no step was finite, or the answer is not.
      ValueError: a method or a start that does not fit the target.
    """
    began = time.perf_counter()
    method = local_advi() if method is None else method
    u = jnp.zeros(target.size) if start is None else jnp.asarray(start)
    _require(target, method, u)
    key_init, key_run, key_check = jax.random.split(key, 3)

    def begin(key: Array, u: Array) -> Loop:
        values = jnp.full(method.num_steps, jnp.nan, u.dtype)
        return Loop(method.init(key, target, u), values, jnp.bool_(False), jnp.int32(0))

    def advance(key: Array, loop: Loop, last: Array) -> Loop:
        def step(loop: Loop) -> Loop:
            state, info = method.step(jax.random.fold_in(key, loop.step), target, loop.state)
            return Loop(state, loop.values.at[loop.step].set(info.value), info.done, loop.step + 1)

        return jax.lax.while_loop(lambda loop: (loop.step < last) & ~loop.done, step, loop)

    on_phase = on_phase or silently
    on_phase(f"compiling {method.name}")
    clock = time.perf_counter()
    options = quick_loops()
    start_of, run = compiled(
        Program(options, begin, (key_init, u)),
        Program(
            options,
            advance,
            (key_run, jax.eval_shape(begin, key_init, u), jnp.int32(0)),
            donate=(1,),
        ),
    )
    compile_seconds = time.perf_counter() - clock
    on_phase(f"running {method.name}")
    loop = start_of(key_init, u)
    blocks = Blocks(method.num_steps if report is None else report_every)
    while not bool(loop.done) and int(loop.step) < method.num_steps:
        first = int(loop.step)
        blocks.begin()
        loop = run(key_run, loop, jnp.minimum(loop.step + blocks.size, method.num_steps))
        last = int(loop.step)
        blocks.end(last - first)
        if report is not None:
            report(last, float(np.nanmean(np.asarray(loop.values[first:last]))))

    on_phase(f"weighing {num_draws:,} samples and checking the rows")
    guide = jax.jit(partial(method.guide, target))(loop.state)
    history = np.asarray(loop.values[: int(loop.step)])
    checks = _checks(key_check, target, guide, num_draws)
    if not np.any(np.isfinite(history)) or not np.all(np.isfinite(np.asarray(checks.elbos))):
        raise FloatingPointError(
            "no step was finite, or the guide is not: see vi.check, which names the line."
        )
    return LocalResult(
        target=target,
        method=method.name,
        guide=guide,
        state=loop.state,
        history={"value": history},
        converged=bool(loop.done),
        num_steps=int(loop.step),
        compile_seconds=compile_seconds,
        seconds=time.perf_counter() - began,
        checks=checks,
    )


def _require(target: LocalTarget, method: Any, u: Array) -> None:
    if not isinstance(method, LocalMethod):
        raise ValueError(
            f"{method.name} moves one vector; rows with latents of their own want "
            "vi.methods.local_advi. (target.whole() is the "
            "same posterior as one vector, for few rows.)"
        )
    if u.shape != (target.size,):
        raise ValueError(f"start wants shape ({target.size},), theta unconstrained; got {u.shape}.")
    v = jnp.zeros((target.batch_size, target.local_size))
    index = jnp.arange(target.batch_size)
    value = float(jax.jit(target.batch_log_joint)(u, v, index))
    if not np.isfinite(value):
        raise TargetError(
            f"the log density is {value} at the start, on the first {target.batch_size:,} rows; "
            "give another start=."
        )


def _checks(key: Array, target: LocalTarget, guide: LocalGuide, num_draws: int) -> Checks:
    key_elbo, key_rows, key_theta = jax.random.split(key, 3)

    def log_weights(key: Array, u: Array, index: Array) -> Array:
        v = guide.sample_rows(key, target, u, index)
        log_q = jax.vmap(lambda q, v: q.log_prob(v))(guide.of_rows(target, u, index), v)
        return target.log_rows(u, v, index) - log_q

    def elbo_on(key: Array) -> Array:
        key_u, key_index, key_v = jax.random.split(key, 3)
        u = guide.shared.sample(key_u)
        rows = log_weights(key_v, u, target.sample_index(key_index)).sum()
        return target.log_global(u) - guide.shared.log_prob(u) + target.scale * rows

    def row_k_hats(key: Array) -> Array:
        key_index, key_u, key_draws = jax.random.split(key, 3)
        num = min(CHECKED, target.num_rows)
        index = _filled(
            jax.random.choice(key_index, target.num_rows, (num,), replace=False), target.batch_size
        )
        u = guide.shared.sample(key_u, (len(index),))
        return k_hats(key_draws, log_weights, u, index, num_draws=K_HAT_DRAWS).reshape(-1)[:num]

    elbos = jax.jit(lambda key: jax.lax.map(elbo_on, jax.random.split(key, ELBO_BATCHES)))(key_elbo)
    shared = None
    if target.num_rows <= MARGINAL:
        weighed = partial(
            weigh_shared,
            log_global=target.log_global,
            log_weights=log_weights,
            q=guide.shared,
            batches=target.batches(),
            num_draws=num_draws,
            num_row_draws=ROW_DRAWS,
        )
        shared = jax.jit(weighed)(key_theta)
    return Checks(elbos, jax.jit(row_k_hats)(key_rows), shared)


def _verdict(
    bad: float, numbers: tuple[float, float, int] | None, *, converged: bool, num_rows: int
) -> tuple[str, str]:
    """A word on theta where it could be checked, and on the rows."""
    if not converged:
        return verdict(0.0, 0.0, K_HAT_DRAWS, converged=False)  # whatever the numbers
    if bad > FEW_BAD:
        return (
            "not reliable",
            f"{bad:.1%} of the rows checked have a bad k-hat given theta: take a richer family "
            "of the rows "
            "(vi.methods.coupled_table(vi.families.full_rank)), a larger encoder, or "
            "reparameterise.",
        )
    if numbers is None:
        return (
            "rows reliable, theta not checked",
            "the guides of rows are good given theta; whether theta's own is was not checked: "
            f"{num_rows:,} rows are too many to "
            "be integrated out. Fit some of the rows alone to have it checked.",
        )
    return verdict(*numbers, converged=True)


def _filled(index: Array, batch_size: int) -> Array:
    """Rows [R] in batches [M, B], the last filled up with the last row."""
    num = -(-len(index) // batch_size) * batch_size
    return index[jnp.minimum(jnp.arange(num), len(index) - 1)].reshape(-1, batch_size)
