"""How the cost of `vi.fit` grows, and published k-hats: sites, starts, rows.

    python -m benchmarks.posterior_scale                 # about 5 minutes on 2 cores
    python -m benchmarks.posterior_scale --write         # and put the table into benchmarks/README.md
    python -m benchmarks.posterior_scale --only=sites,starts

sites: `vi.fit` on models of 10, 50 and 200 scalar sites, and NumPyro's AutoNormal's first step on them. starts: 100 starts of eight
schools against one. rows: Pathfinder on a logistic regression of a million rows, and its peak memory; minibatches of it. yao: the
k-hats of Yao et al. 2018, mean-field.
"""

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import vi_jax as vi
from benchmarks import report

PEER_SITES = 50  # NumPyro's AutoNormal takes minutes beyond
Line = tuple[str, str, str]
EFFECTS = jnp.array([28.0, 8, -3, 7, -1, 1, 18, 12])
STDERRS = jnp.array([15.0, 10, 16, 11, 9, 11, 10, 18])


def scalar_sites(num: int) -> Callable[[], None]:
    """A model of `num` scalar latents, half of them positive, and one observation of their sum."""

    def model() -> None:
        total: Any = 0.0
        for i in range(num):
            total = total + numpyro.sample(f"s{i}", dist.HalfNormal(1.0) if i % 2 else dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(total, 1.0), obs=jnp.asarray(1.0))

    return model


def schools(*, centered: bool) -> Callable[[], None]:
    """Eight schools (Rubin 1981)."""

    def model() -> None:
        mu, tau = numpyro.sample("mu", dist.Normal(0.0, 5.0)), numpyro.sample("tau", dist.HalfCauchy(5.0))
        if centered:
            theta = numpyro.sample("theta", dist.Normal(mu, tau).expand([8]).to_event(1))
        else:
            theta = mu + tau * numpyro.sample("raw", dist.Normal(0.0, 1.0).expand([8]).to_event(1))
        numpyro.sample("y", dist.Normal(theta, STDERRS).to_event(1), obs=EFFECTS)

    return model


def sites() -> list[Line]:
    """Compile time against the number of sites."""
    from numpyro.infer import SVI, Trace_ELBO, autoguide

    lines = []
    for num in (10, 50, 200):
        model = scalar_sites(num)
        result = vi.fit(jax.random.key(0), vi.targets.from_numpyro(model))
        lines.append(
            (f"`vi.fit`, {num} scalar sites: compiling", f"{result.compile_seconds:.1f} s", f"{result.seconds:.1f} s in all")
        )
        jax.clear_caches()
        if num > PEER_SITES:
            continue
        began = time.perf_counter()
        svi = SVI(model, autoguide.AutoNormal(model), numpyro.optim.Adam(0.01), Trace_ELBO())
        state = svi.init(jax.random.key(0))
        jax.block_until_ready(jax.jit(svi.update)(state))
        lines.append((f"NumPyro AutoNormal, {num} scalar sites: to the first step", f"{time.perf_counter() - began:.1f} s", ""))
        jax.clear_caches()
    return lines


def starts() -> list[Line]:
    """100 starts under one vmap against one."""
    target = vi.targets.from_numpyro(schools(centered=False))
    seconds = {}
    for num in (1, 100):
        result = vi.fit(jax.random.key(0), target, num_starts=num)
        seconds[num] = (result.seconds, result.seconds - result.compile_seconds, np.ptp(result.starts))
    whole, running = seconds[100][0] / seconds[1][0], seconds[100][1] / seconds[1][1]
    words = f"{seconds[100][0]:.1f} s against {seconds[1][0]:.1f} s, compile included; {running:.1f} times without"
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
    words = f"{result.evaluations} gradients, {result.seconds:.0f} s, k-hat {result.diagnostics.k_hat:.2f}; "
    words += f"{before / 2**20:.1f} GiB before"
    return [(f"Pathfinder, logistic regression of {num:,} rows: peak memory of the process", f"{peak / 2**20:.1f} GiB", words)]


def rows_minibatch() -> list[Line]:
    """Minibatches of a million rows against the mode and curvature of all of them (Laplace is exact there to 0.01 SD)."""
    log_prior, log_lik, data, num = million_rows()
    whole = vi.targets.from_log_density(lambda w: log_prior(w) + log_lik(w, data).sum(), 10)
    exact = vi.fit(jax.random.key(0), whole, vi.methods.laplace(), num_draws=25)
    mean, sd = np.asarray(exact.guide.mean), np.sqrt(np.diag(np.asarray(exact.guide.covariance_matrix)))
    target = vi.targets.from_rows(log_prior, log_lik, data, 10, batch_size=1000)
    result = vi.fit(jax.random.key(1), target, num_draws=25)
    u = np.asarray(result.guide.mean)
    off = np.max(np.abs(u - mean) / sd)
    gradient = jax.jit(jax.grad(whole.log_density))
    jax.block_until_ready(gradient(jnp.asarray(mean)))
    began = time.perf_counter()
    for _ in range(10):
        jax.block_until_ready(gradient(jnp.asarray(mean)))
    once = (time.perf_counter() - began) / 10
    words = f"{result.seconds:.0f} s, {result.method}, {'converged' if result.converged else 'not converged'}; "
    words += f"a gradient of all rows takes {1000 * once:.0f} ms: NUTS of 2,000 steps of 7 leapfrogs {once * 14_000:,.0f} s"
    return [(f"minibatches of 1,000 of {num:,} rows: worst mean error", f"{off:.2f} SD", words)]


def yao() -> list[Line]:
    """Mean-field k-hats on the examples of Yao et al. 2018."""
    lines = []
    for centered, published in ((True, "1.00"), (False, "0.64")):
        target = vi.targets.from_numpyro(schools(centered=centered))
        result = vi.fit(jax.random.key(0), target, vi.methods.advi(), num_draws=100_000)
        name = "centred" if centered else "non-centred"
        lines.append(
            (f"mean-field k-hat, eight schools {name} (published {published})", f"{result.diagnostics.k_hat:.2f}", _steps(result))
        )
    key_x, key_w, key_y = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(key_x, (10_000, 100))
    y = x @ jax.random.normal(key_w, (100,)) + 2.0 * jax.random.normal(key_y, (10_000,))

    def regression() -> None:
        w = numpyro.sample("w", dist.Normal(0.0, 10.0).expand([100]).to_event(1))
        sigma = numpyro.sample("sigma", dist.Gamma(0.5, 0.5))
        numpyro.sample("y", dist.Normal(x @ w, sigma).to_event(1), obs=y)

    result = vi.fit(jax.random.key(0), vi.targets.from_numpyro(regression), vi.methods.advi(), num_draws=4000)
    lines.append(
        ("mean-field k-hat, regression n = 10,000, K = 100 (published 0.61)", f"{result.diagnostics.k_hat:.2f}", _steps(result))
    )
    return lines


def _steps(result: Any) -> str:
    return f"ADVI, {result.num_steps:,} steps, {'converged' if result.converged else 'not converged'}, {result.seconds:.0f} s"


PARTS: dict[str, Callable[[], list[Line]]] = {
    "sites": sites, "starts": starts, "rows_whole": rows_whole, "rows_minibatch": rows_minibatch, "yao": yao,
}  # fmt: skip


def main() -> None:
    """Each part in a process of its own: peak memory and compiled programs are not shared."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(PARTS), help="comma-separated parts: " + ", ".join(PARTS))
    parser.add_argument("--part", default="", help=argparse.SUPPRESS)
    parser.add_argument("--write", action="store_true", help="put the table into benchmarks/README.md")
    flags = parser.parse_args()
    if flags.part:
        for line in PARTS[flags.part]():
            print("\t".join(line))
        return
    lines: list[list[str]] = []
    for part in flags.only.split(","):
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.posterior_scale", f"--part={part}"], capture_output=True, text=True, check=False
        )
        if done.returncode:
            report.say(f"{part}: failed: {done.stderr.strip().splitlines()[-1]}")
            lines.append([part, "failed", done.stderr.strip().splitlines()[-1][:100]])
        for text in done.stdout.splitlines():
            lines.append(text.split("\t"))
            report.say(" | ".join(lines[-1]))
    versions = ", ".join(f"{k} {v}" for k, v in report.versions("jax", "numpyro", "vi_jax").items())
    text = f"{report.markdown_table(('what', 'measured', 'how'), lines)}\n\n{report.device_name()}; {versions}."
    print(text)
    if flags.write:
        report.write_block("posterior_scale", text)


if __name__ == "__main__":
    main()
