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
            total = total + numpyro.sample(
                f"s{i}", dist.HalfNormal(1.0) if i % 2 else dist.Normal(0.0, 1.0)
            )
        numpyro.sample("y", dist.Normal(total, 1.0), obs=jnp.asarray(1.0))

    return model


def schools(*, centered: bool) -> Callable[[], None]:
    """Eight schools (Rubin 1981)."""

    def model() -> None:
        mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
        tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
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


SCALED = (
    "kidiq-kidscore_interaction",
    "earnings-logearn_interaction",
    "earnings-earn_height",
    "nes1972-nes",
    "sblri-blr",
    "mesquite-mesquite",
)


def scaled() -> list[Line]:
    """ADVI, full rank, on regressions whose coordinates differ in scale by up to thousands, against
    reference moments.
    """
    from experiments import posteriordb

    lines = []
    with jax.enable_x64(True):
        for name in SCALED:
            posterior = posteriordb.load(name, ROOT)
            target = vi.targets.from_numpyro(posterior.model)
            result = vi.fit(jax.random.key(0), target, vi.methods.advi(vi.families.full_rank))
            draws = posterior.flatten(result.sample(jax.random.key(1), 4000))
            off = np.max(np.abs(draws.mean(0) - posterior.mean) / posterior.sd)
            spread = np.max(np.abs(draws.std(0) / posterior.sd - 1))
            words = f"{spread:.1%} the worst standard deviation; {_steps(result)}"
            lines.append((f"ADVI, full rank, {name}: worst mean error", f"{off:.2f} SD", words))
            jax.clear_caches()
        lines.append(_scaled_minibatches())
    return lines


def _scaled_minibatches() -> Line:
    """The first of them from 20 rows at a time."""
    from experiments import posteriordb

    posterior = posteriordb.load(SCALED[0], ROOT)
    hs, iq, score = (
        np.asarray(posterior.data[name], float) for name in ("mom_hs", "mom_iq", "kid_score")
    )
    design = np.stack([np.ones_like(hs), hs, iq, hs * iq], 1)

    def log_prior(z: Any) -> Any:
        return dist.HalfCauchy(2.5).log_prob(z["sigma"])

    def log_lik(z: Any, rows: Any) -> Any:
        x, y = rows
        return dist.Normal(x @ z["beta"], z["sigma"]).log_prob(y)

    example = {"beta": jnp.zeros(4), "sigma": jnp.ones(())}
    supports = {"beta": None, "sigma": dist.constraints.positive}
    target = vi.targets.from_rows(
        log_prior, log_lik, (design, score), example, supports, batch_size=20
    )
    result = vi.fit(jax.random.key(0), target, vi.methods.advi(vi.families.full_rank))
    z = result.sample(jax.random.key(1), 4000)
    draws = np.concatenate([np.asarray(z["beta"]), np.asarray(z["sigma"])[:, None]], 1)
    off = np.max(np.abs(draws.mean(0) - posterior.mean) / posterior.sd)
    words = (
        f"{np.max(np.abs(draws.std(0) / posterior.sd - 1)):.1%} the worst standard "
        f"deviation; {_steps(result)}"
    )
    return (
        f"the first by minibatches of 20 of {len(score)} rows: worst mean error",
        f"{off:.2f} SD",
        words,
    )


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


ROOT = ""  # of posteriordb, for `scaled`


def yao() -> list[Line]:
    """Mean-field k-hats on the examples of Yao et al. 2018."""
    lines = []
    for centered, published in ((True, "1.00"), (False, "0.64")):
        target = vi.targets.from_numpyro(schools(centered=centered))
        result = vi.fit(jax.random.key(0), target, vi.methods.advi(), num_draws=100_000)
        name = "centred" if centered else "non-centred"
        lines.append(
            (
                f"mean-field k-hat, eight schools {name} (published {published})",
                f"{result.diagnostics.k_hat:.2f}",
                _steps(result),
            )
        )
    key_x, key_w, key_y = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(key_x, (10_000, 100))
    y = x @ jax.random.normal(key_w, (100,)) + 2.0 * jax.random.normal(key_y, (10_000,))

    def regression() -> None:
        w = numpyro.sample("w", dist.Normal(0.0, 10.0).expand([100]).to_event(1))
        sigma = numpyro.sample("sigma", dist.Gamma(0.5, 0.5))
        numpyro.sample("y", dist.Normal(x @ w, sigma).to_event(1), obs=y)

    target = vi.targets.from_numpyro(regression)
    result = vi.fit(jax.random.key(0), target, vi.methods.advi(), num_draws=4000)
    short = vi.fit(jax.random.key(0), target, adagrad(0.1, num_steps=5000), num_draws=4000)
    name = "mean-field k-hat, regression n = 10,000, K = 100"
    return [
        *lines,
        (f"{name} (published 0.61)", f"{result.diagnostics.k_hat:.2f}", _steps(result)),
        (
            "that of the optimum, exactly",
            f"{exact_k(x):.2f}",
            "1 less the least eigenvalue of the regressors' correlations",
        ),
        (
            "that of the last of 5,000 steps of one draw, rates as in Stan's ADVI",
            f"{short.diagnostics.k_hat:.2f}",
            "eta 0.1",
        ),
    ]


def exact_k(x: Any) -> float:
    """k of p / q for the mean-field q of highest ELBO on a Gaussian p of precision x'x, up to a
    factor.

    q's precision is the diagonal Q of p's, P. E_q[(p/q)^m] is finite while m P - (m - 1) Q is
    positive definite, that is for m < 1 / (1 - a), a the least eigenvalue of Q^-1/2 P Q^-1/2, and k
    is 1 over the least m at which it is not.
    """
    precision = np.asarray(x, np.float64).T @ np.asarray(x, np.float64)
    scale = np.sqrt(np.diag(precision))
    return float(1 - np.linalg.eigvalsh(precision / np.outer(scale, scale)).min())


def adagrad(rate: float, *, num_steps: int) -> Any:
    """Mean-field ADVI with steps as in Kucukelbir et al. (2017, eq. 10 and 11), one draw a step;
    the answer is the last iterate.
    """

    def guide_of(params: Any) -> Any:
        return dist.Normal(params[0], jnp.exp(params[1])).to_event(1)

    def init(key: Any, log_density: Any, start: Any) -> Any:
        params = (jnp.zeros_like(start), jnp.zeros_like(start))
        return params, jax.tree.map(jnp.zeros_like, params), jnp.int32(0)

    def step(key: Any, log_density: Any, state: Any) -> Any:
        params, memory, number = state
        slope = jax.grad(lambda params: vi.elbo(key, log_density, guide_of(params), num_samples=1))(
            params
        )
        memory = jax.tree.map(
            lambda s, g: jnp.where(number == 0, g**2, 0.1 * g**2 + 0.9 * s), memory, slope
        )
        shrinking = rate * (number + 1.0) ** (-0.5 + 1e-16)
        params = jax.tree.map(
            lambda p, g, s: p + shrinking * g / (1 + jnp.sqrt(s)), params, slope, memory
        )
        return (params, memory, number + 1), vi.types.MethodInfo(
            jnp.zeros(()), number + 1, number + 1 >= num_steps
        )

    return vi.Method("adagrad", init, step, lambda state: guide_of(state[0]), num_steps)


def _steps(result: Any) -> str:
    return (
        f"ADVI, {result.num_steps:,} steps, "
        f"{'converged' if result.converged else 'not converged'}, {result.seconds:.0f} s"
    )


PARTS: dict[str, Callable[[], list[Line]]] = {
    "sites": sites,
    "starts": starts,
    "rows_whole": rows_whole,
    "rows_minibatch": rows_minibatch,
    "locals": locals_,
    "yao": yao,
    "scaled": scaled,
}


def main() -> None:
    """Each part in a process of its own: peak memory and compiled programs are not shared."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only", default=",".join(PARTS), help="comma-separated parts: " + ", ".join(PARTS)
    )
    parser.add_argument(
        "--root",
        default="",
        help="a clone of posteriordb, for the part `scaled`, which is left out without",
    )
    parser.add_argument("--part", default="", help=argparse.SUPPRESS)
    parser.add_argument(
        "--write", action="store_true", help="put the table into benchmarks/README.md"
    )
    flags = parser.parse_args()
    if flags.part:
        global ROOT
        ROOT = flags.root
        for line in PARTS[flags.part]():
            print("\t".join(line))
        return
    lines: list[list[str]] = []
    for part in flags.only.split(","):
        if part == "scaled" and not flags.root:
            report.say("scaled: left out; it wants --root=CLONE_OF_POSTERIORDB")
            continue
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "benchmarks.posterior_scale",
                f"--part={part}",
                f"--root={flags.root}",
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            report.say(f"{part}: failed: {done.stderr.strip().splitlines()[-1]}")
            lines.append([part, "failed", done.stderr.strip().splitlines()[-1][:100]])
        for text in done.stdout.splitlines():
            lines.append(text.split("\t"))
            report.say(" | ".join(lines[-1]))
    versions = ", ".join(f"{k} {v}" for k, v in report.versions("jax", "numpyro", "vi_jax").items())
    text = (
        f"{report.markdown_table(('what', 'measured', 'how'), lines)}\n\n{report.device_name()}; "
        f"{versions}."
    )
    print(text)
    if flags.write:
        report.write_block("posterior_scale", text)


if __name__ == "__main__":
    main()
