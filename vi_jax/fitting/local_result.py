"""The result of a fit with local latent variables, and its diagnostics."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax.diagnostics.posterior import WeightedSamples, trusted, verdict
from vi_jax.diagnostics.psis import k_threshold
from vi_jax.files import StrPath
from vi_jax.fitting import _rows
from vi_jax.fitting._inference_data import as_inference
from vi_jax.fitting.details import plain
from vi_jax.local.guide import LocalGuide
from vi_jax.targets.local import LocalTarget
from vi_jax.types import Array

MAX_INTEGRATED_ROWS = 100_000  # rows up to which they are integrated out of theta's weights
# of theta's weighted means, by the samples of the rows, in standard deviations
MAX_ROW_STDERR = 0.1
K_HAT_DRAWS = 1_000
MAX_BAD_SHARE = 0.01  # of rows with a bad k-hat, in a reliable answer


class LocalDiagnostics(NamedTuple):
    """How good the answer is; numbers in nats, None where they were not computed."""

    verdict: str
    advice: str
    elbo: float
    elbo_stderr: float
    # the 99 % quantile over the rows that were checked, of z_n given theta; -inf: nearly equal
    row_k_hat: float
    rows_bad: float  # share of those rows whose k-hat is not under the threshold
    rows_checked: int
    rows_never_visited: int
    k_hat: float | None  # of theta, rows integrated out
    effective: float | None
    log_evidence: float | None
    log_evidence_stderr: float | None
    # standard error of theta's weighted means by the samples of the rows, the largest, in standard
    # deviations; above 1,000 rows, where all samples of theta share them
    row_stderr: float | None
    trusted: bool  # whether theta's moments by weights can be trusted


class Checks(NamedTuple):
    """Arrays behind the diagnostics."""

    elbos: Array  # [200], of random batches
    row_k_hats: Array  # [R]
    shared: WeightedSamples | None  # samples of theta with their weights
    row_stderr: Array | None = None  # [D], see `diagnostics.many_rows`


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
        numbers = None
        if shared is not None:
            numbers = (float(shared.k_hat), float(shared.effective), len(shared.u))
        row_stderr = None
        if self.checks.row_stderr is not None:
            row_stderr = float(np.max(np.asarray(self.checks.row_stderr)))
        noisy = row_stderr is not None and not row_stderr <= MAX_ROW_STDERR
        usable = None if noisy else numbers
        num_rows = self.target.num_rows
        word, advice = _verdict(bad, usable, row_stderr, self.converged, num_rows)
        of_theta = {
            name: None if shared is None else float(getattr(shared, name))
            for name in ("k_hat", "effective", "log_evidence", "log_evidence_stderr")
        }
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
            row_stderr=row_stderr,
            trusted=numbers is not None and not noisy and trusted(*numbers),
            **of_theta,
        )

    def sample(self, key: Array, num_draws: int = 1000, *, rows: Any = None) -> tuple[Any, Any]:
        """Samples of theta, leaves [num_draws, ...], and with them of z, leaves [num_draws, R,
        ...].

        Args:
          rows: numbers of the rows whose z to sample, [R]; all N if not given.
        """
        index = jnp.arange(self.target.num_rows)
        if rows is not None:
            index = jnp.asarray(rows, jnp.int32).reshape(-1)
        key_u, key_v = jax.random.split(key)
        u = self.guide.shared.sample(key_u, (num_draws,))
        batches = filled(index, self.target.batch_size)

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
        """{"mean", "sd"} of theta's sites, "row_mean" and "row_sd" of the rows' (all, or
        those of `rows`), and "corrected": theta's by smoothed importance weights where they can be
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
        """An ArviZ InferenceData with samples of the guide as one chain, theta's sites and the
        rows' [1, num_draws, R, ...], and the diagnostics as its attributes.

        Args:
          key: of the samples, `jax.random.key(0)` if not given.
          rows: as for `sample`.
        """
        key = jax.random.key(0) if key is None else key
        theta, z = self.sample(key, num_draws, rows=rows)
        sites = [
            tree if isinstance(tree, dict) else {name: tree}
            for name, tree in (("theta", theta), ("z", z))
        ]
        return as_inference({"posterior": sites[0] | sites[1]}, self.method, self.diagnostics)

    def save(self, folder: StrPath) -> None:
        """Writes the result into a folder; `Result.save` says how."""
        from vi_jax.fitting.saving import save_result

        save_result(self, folder)

    def report(self) -> dict[str, Any]:
        """What is known, machine-readable, as strict JSON takes it: numbers and words; a number
        that is not finite is None.
        """
        names = ("method", "converged", "num_steps", "seconds", "compile_seconds")
        return plain({name: getattr(self, name) for name in names} | self.diagnostics._asdict())

    def __str__(self) -> str:
        d = self.diagnostics
        t = self.target
        k_theta = "not computed"
        shared = self.checks.shared
        if shared is not None:
            k_theta = f"{d.k_hat:.2f}, {d.effective:,.0f} effective samples of {len(shared.u):,}"
        how = f"rows integrated out; up to {MAX_INTEGRATED_ROWS:,} rows"
        if d.row_stderr is not None:
            how = f"rows integrated out to {d.row_stderr:.3f} SD of theta's means"
        k_rows = f"{d.row_k_hat:.2f}" if d.row_k_hat > -np.inf else "nearly equal weights"
        rows = [
            ("method", self.method),
            (
                "latents",
                f"{t.size:,} global and {t.local_size:,} local for each of {t.num_rows:,} rows, "
                f"{t.batch_size:,} rows at a time",
            ),
            ("ELBO", f"{d.elbo:,.3f} ± {d.elbo_stderr:.3f} nats"),
            (
                "k-hat of theta",
                f"{k_theta} ({how})",
            ),
            (
                "k-hat of rows",
                f"{k_rows} at 99 %, {d.rows_bad:.1%} bad, of {d.rows_checked:,} rows, given theta",
            ),
            ("steps", f"{self.num_steps:,}; {d.rows_never_visited:,} rows never visited"),
            ("time", f"{self.seconds:.1f} s, of which compiling {self.compile_seconds:.1f} s"),
            ("verdict", d.verdict),
            ("next", d.advice),
        ]
        return _rows.lines(rows)

    def __repr__(self) -> str:
        return str(self)  # what a notebook shows


def _verdict(
    bad: float,
    numbers: tuple[float, float, int] | None,
    row_stderr: float | None,
    converged: bool,
    num_rows: int,
) -> tuple[str, str]:
    """A word on theta where it could be checked, and on the rows."""
    if not converged:
        return verdict(0.0, 0.0, K_HAT_DRAWS, converged=False)  # whatever the numbers
    if bad > MAX_BAD_SHARE:
        return (
            "not reliable",
            f"{bad:.1%} of the rows checked have a bad k-hat given theta: take a richer family "
            "of the rows "
            "(vi.methods.coupled_table(vi.families.full_rank)), a larger encoder, or "
            "reparameterise.",
        )
    if numbers is None and row_stderr is not None:
        return (
            "rows reliable, theta not checked",
            "the rows could not be integrated out well enough to check theta's guide: their "
            f"samples leave a standard error of {row_stderr:.2f} SD in its means. Take a richer "
            "family of the rows, or fit some of the rows alone.",
        )
    if numbers is None:
        return (
            "rows reliable, theta not checked",
            "the guides of rows are good given theta; whether theta's own is was not checked: "
            f"{num_rows:,} rows are too many to "
            "be integrated out. Fit some of the rows alone to have it checked.",
        )
    return verdict(*numbers, converged=True)


def filled(index: Array, batch_size: int) -> Array:
    """Rows [R] in batches [M, B], the last filled up with the last row."""
    num = -(-len(index) // batch_size) * batch_size
    return index[jnp.minimum(jnp.arange(num), len(index) - 1)].reshape(-1, batch_size)
