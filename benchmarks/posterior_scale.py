"""How the cost of `vi.fit` grows, and published k-hats: sites, starts, rows.

    python -m benchmarks.posterior_scale                 # about 10 minutes on 2 cores
    python -m benchmarks.posterior_scale --write  # and put the table into benchmarks/README.md
    python -m benchmarks.posterior_scale --only=sites,starts

sites: `vi.fit` (the method that it picks, no second one) on models of 10, 50 and 200 scalar sites,
and NumPyro's AutoNormal's first step on them. starts: 100 starts of eight schools against one.
rows_whole: Pathfinder on a logistic regression of a million rows and its peak memory.
rows_minibatch: minibatches of it, against NUTS on all rows. scaled: ADVI on regressions of
posteriordb, units far apart (with --root). locals: the cost of a step with a latent for each of up
to a million rows. yao: the k-hats of Yao et al. 2018, mean-field.
"""

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import vi_jax as vi
from benchmarks import report
from benchmarks.posterior_models import Line, scalar_sites, schools
from benchmarks.posterior_scaled import scaled
from benchmarks.posterior_yao import yao

PEER_SITES = 50  # NumPyro's AutoNormal takes minutes beyond
# the lines that README.md shows, 12 in all: the last of these parts, the first three of others
LAST = {"sites": 2, "locals": 1, "scaled": 2}


def sites() -> list[Line]:
    """Compile time against the number of sites."""
    from numpyro.infer import SVI, Trace_ELBO, autoguide

    lines = []
    for num in (10, 50, 200):
        model = scalar_sites(num)
        result = vi.fit(jax.random.key(0), vi.targets.from_numpyro(model), fallback=0)
        lines.append(
            (
                f"`vi.fit`, {num} scalar sites: compiling",
                f"{result.compile_seconds:.1f} s",
                f"{result.seconds:.1f} s in all",
            )
        )
        jax.clear_caches()
        if num > PEER_SITES:
            continue
        began = time.perf_counter()
        svi = SVI(model, autoguide.AutoNormal(model), numpyro.optim.Adam(0.01), Trace_ELBO())
        state = svi.init(jax.random.key(0))
        jax.block_until_ready(jax.jit(svi.update)(state))
        lines.append(
            (
                f"NumPyro AutoNormal, {num} scalar sites: to the first step",
                f"{time.perf_counter() - began:.1f} s",
                "",
            )
        )
        jax.clear_caches()
    return lines


def starts() -> list[Line]:
    """100 starts under one vmap against one."""
    target = vi.targets.from_numpyro(schools(centered=False))
    seconds = {}
    for num in (1, 100):
        result = vi.fit(jax.random.key(0), target, num_starts=num)
        seconds[num] = (
            result.seconds,
            result.seconds - result.compile_seconds,
            np.ptp(result.starts),
        )
    whole = seconds[100][0] / seconds[1][0]
    running = seconds[100][1] / seconds[1][1]
    words = (
        f"{seconds[100][0]:.1f} s against {seconds[1][0]:.1f} s, compile included; "
        f"{running:.1f} times without"
    )
    return [("100 starts of eight schools against one", f"{whole:.1f} times", words)]


def million_rows() -> tuple[Any, Any, Any, Any]:
    """Prior, likelihood by rows, data and N of a logistic regression with 10 weights."""
    num = 1_000_000
    key_x, key_y = jax.random.split(jax.random.key(0))
    x = jax.random.normal(key_x, (num, 10))
    w = jnp.linspace(-1.0, 1.0, 10)
    y = jax.random.bernoulli(key_y, jax.nn.sigmoid(x @ w)).astype(jnp.float32)

    def log_lik(w: Any, rows: Any) -> Any:
        x, y = rows
        return vi.distributions.Bernoulli(x @ w).log_prob(y)

    return lambda w: dist.Normal(0.0, 1.0).log_prob(w).sum(), log_lik, (x, y), num


def rows_whole() -> list[Line]:
    """Pathfinder on a million rows; run in a process of its own, for its peak memory."""
    log_prior, log_lik, data, num = million_rows()
    target = vi.targets.from_log_density(lambda w: log_prior(w) + log_lik(w, data).sum(), 10)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = vi.fit(jax.random.key(0), target, vi.methods.pathfinder(), num_draws=200)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    words = (
        f"{result.evaluations} gradients, {result.seconds:.0f} s, k-hat "
        f"{result.diagnostics.k_hat:.2f}; "
    )
    words += f"{before / 2**20:.1f} GiB before"
    return [
        (
            f"Pathfinder, logistic regression of {num:,} rows: peak memory of the process",
            f"{peak / 2**20:.1f} GiB",
            words,
        )
    ]


def rows_minibatch() -> list[Line]:
    """Minibatches of a million rows against NUTS on all of them."""
    log_prior, log_lik, data, num = million_rows()
    target = vi.targets.from_rows(log_prior, log_lik, data, 10, batch_size=1000)
    result = vi.fit(jax.random.key(1), target, num_draws=25)
    running = result.seconds - result.compile_seconds
    u, seconds, leapfrogs = nuts(target.log_density, 10)
    off = np.abs(np.asarray(result.guide.mean) - u.mean(0)) / u.std(0)
    spread = np.abs(np.sqrt(np.diag(np.asarray(result.guide.covariance_matrix))) / u.std(0) - 1)
    words = (
        f"and {spread.max():.1%} the worst standard deviation; {result.method}, "
        f"{result.num_steps:,} steps, "
    )
    words += f"{'converged' if result.converged else 'not converged'}; {result.why.split('; ')[-1]}"
    took = (
        f"{result.seconds:.1f} s, of which compiling {result.compile_seconds:.1f} s, against "
        f"{seconds:.0f} s with compiling"
    )
    return [
        (
            f"minibatches of 1,000 of {num:,} rows: worst mean error against NUTS",
            f"{off.max():.2f} SD",
            words,
        ),
        (
            f"the same: seconds over those of NUTS, one chain of {NUTS_WARMUP:,} + {NUTS_DRAWS:,}",
            f"{result.seconds / seconds:.1%}, {running / seconds:.1%} without compiling",
            f"{took}, {leapfrogs:.1f} leapfrogs a draw",
        ),
    ]


NUTS_WARMUP = 1000
NUTS_DRAWS = 1000


def nuts(log_density: Callable[[Any], Any], size: int) -> tuple[np.ndarray, float, float]:
    """Draws [S, D] by NumPyro's NUTS from a point of its cube, the seconds that they took, and
    leapfrogs a draw.
    """
    from numpyro.infer import MCMC, NUTS

    sampler = MCMC(
        NUTS(potential_fn=lambda u: -log_density(u)),
        num_warmup=NUTS_WARMUP,
        num_samples=NUTS_DRAWS,
        progress_bar=False,
    )
    start = jax.random.uniform(jax.random.key(3), (size,), minval=-2.0, maxval=2.0)
    began = time.perf_counter()
    sampler.run(jax.random.key(2), init_params=start, extra_fields=("num_steps",))
    u = np.asarray(sampler.get_samples())
    return u, time.perf_counter() - began, float(np.mean(sampler.get_extra_fields()["num_steps"]))


def locals_() -> list[Line]:
    """Milliseconds of a step where each of N rows has a latent of its own, in a table, 1,000 rows
    at a time.
    """
    lines = []
    for num in (10_000, 100_000, 1_000_000):
        x = 2.0 + jnp.hypot(1.0, 0.7) * jax.random.normal(jax.random.key(0), (num,))

        def log_prior(theta: Any) -> Any:
            return dist.Normal(0.0, 5.0).log_prob(theta).sum()

        def log_joint(theta: Any, z: Any, rows: Any) -> Any:
            return dist.Normal(theta[0], jnp.exp(theta[1])).log_prob(z[:, 0]) + dist.Normal(
                z[:, 0], 0.7
            ).log_prob(rows)

        target = vi.targets.from_local_rows(log_prior, log_joint, x, 2, 1, batch_size=1000)
        step = _step_seconds(target)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        lines.append(
            (
                f"a latent for each of {num:,} rows: a step on 1,000 of them",
                f"{1e3 * step:.2f} ms",
                f"{peak:.1f} GiB peak",
            )
        )
    return lines


def _step_seconds(target: Any) -> float:
    clock: list[float] = []

    def report(step: int, value: float) -> None:
        clock.append(time.perf_counter())

    vi.fit(
        jax.random.key(1),
        target,
        vi.methods.local_advi(num_steps=2000),
        report=report,
        report_every=500,
    )
    return float(np.median(np.diff(clock)) / 500)


def parts(root: str) -> dict[str, Callable[[], list[Line]]]:
    """Every part by name; `root` is a clone of posteriordb, for `scaled`."""
    return {
        "sites": sites,
        "starts": starts,
        "rows_whole": rows_whole,
        "rows_minibatch": rows_minibatch,
        "locals": locals_,
        "yao": yao,
        "scaled": partial(scaled, root),
    }


def main() -> None:
    """Each part in a process of its own: peak memory and compiled programs are not shared."""
    flags = parse_flags()
    if flags.part:
        for line in parts(flags.root)[flags.part]():
            print("\t".join(line))
        return
    whole: list[list[str]] = []
    shown: list[list[str]] = []
    for part in flags.only.split(","):
        if part == "scaled" and not flags.root:
            report.say("scaled: left out; it needs --root=CLONE_OF_POSTERIORDB")
            continue
        lines = in_a_process(part, flags.root)
        whole += lines
        shown += lines[-LAST[part] :] if part in LAST else lines[:3]
    head = ("what", "measured", "how")
    note = f"{report.used('jax', 'numpyro', 'vi_jax')} {report.link('posterior_scale')}"
    text = f"{report.markdown_table(head, shown)}\n\n{note}"
    report.finish("posterior_scale", text, flags, whole=report.LongTable(head, whole))


def in_a_process(part: str, root: str) -> list[list[str]]:
    """The lines of one part; a line that says so where it failed."""
    command = [sys.executable, "-m", "benchmarks.posterior_scale"]
    command += [f"--part={part}", f"--root={root}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [text.split("\t") for text in done.stdout.splitlines()]
    for line in lines:
        report.say(" | ".join(line))
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1]
        report.say(f"{part}: failed: {reason}")
        lines.append([part, "failed", reason[:100]])
    return lines


def parse_flags() -> argparse.Namespace:
    """The command line."""
    names = ", ".join(parts(""))
    parser = report.make_parser(__doc__.splitlines()[0], has_json=False)
    parser.add_argument(
        "--only", default=",".join(parts("")), help=f"comma-separated parts: {names}"
    )
    parser.add_argument(
        "--root",
        default="",
        help="a clone of posteriordb, for the part `scaled`, which is left out without",
    )
    parser.add_argument("--part", default="", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
