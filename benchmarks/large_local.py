"""Posteriors of 10^5 rows with 10^4 local latent variables: `vi.fit` by minibatches against NUTS on
the collapsed model.

    python -m benchmarks.large_local                        # both models; minutes each
    python -m benchmarks.large_local --only=normal --write  # README.md

10,000 groups of ten rows, a latent location for each group, two or three global latents; float32,
simulated data of seed 0. The collapsed model has the groups' latents integrated out: in closed form
(normal), or by 64 nodes of Gauss-Hermite quadrature for each of the eleven possible counts
(binary); NumPyro's NUTS on it is the truth, one chain of 1,000 + 8,000 in float64, which takes
seconds. Seconds of the fit are from the call, compilation included; those of the processor are
beside those of the clock, which other work on the machine disturbs.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC, NUTS

import vi_jax as vi
from benchmarks import report

NUM_GROUPS = 10_000
ROWS_PER_GROUP = 10
BATCH_SIZE = 1_000  # groups
NUM_NODES = 64
TRUTH_WARMUP = 1_000
TRUTH_SAMPLES = 8_000
BLOCK_NAME = "large_local"
Model = Callable[[], None]


class Problem(NamedTuple):
    """A model with a latent for each group, and the same without."""

    model: Callable[[int], Model]  # groups in a batch -> model
    collapsed: Model


def groups(rng: np.random.Generator, level: float, scale: float) -> np.ndarray:
    """Locations of the groups, [NUM_GROUPS, 1]."""
    return level + scale * rng.normal(size=(NUM_GROUPS, 1))


def hyper() -> tuple[Any, Any]:
    """Level and scale of the groups."""
    level = numpyro.sample("level", dist.Normal(0.0, 5.0))
    scale = numpyro.sample("scale", dist.HalfNormal(2.0))
    return level, scale


def normal() -> Problem:
    """Normal rows about the normal locations of their groups; three global latents."""
    rng = np.random.default_rng(0)
    x = groups(rng, 1.5, 0.8) + 1.2 * rng.normal(size=(NUM_GROUPS, ROWS_PER_GROUP))
    x = np.asarray(x, np.float32)
    mean = x.mean(1, dtype=np.float64)
    within = ((x - mean[:, None]) ** 2).sum()
    x = jnp.asarray(x)

    def of_batches(batch_size: int) -> Model:
        def model() -> None:
            level, scale = hyper()
            noise = numpyro.sample("noise", dist.HalfNormal(2.0))
            with numpyro.plate("groups", NUM_GROUPS, batch_size, dim=-2) as index:
                z = numpyro.sample("z", dist.Normal(level, scale))
                with numpyro.plate("rows", ROWS_PER_GROUP, dim=-1):
                    numpyro.sample("x", dist.Normal(z, noise), obs=x[index])

        return model

    def collapsed() -> None:
        level, scale = hyper()
        noise = numpyro.sample("noise", dist.HalfNormal(2.0))
        num_within = NUM_GROUPS * (ROWS_PER_GROUP - 1)
        numpyro.factor("within", -0.5 * within / noise**2 - num_within * jnp.log(noise))
        of_mean = dist.Normal(level, jnp.sqrt(scale**2 + noise**2 / ROWS_PER_GROUP))
        numpyro.factor("between", of_mean.log_prob(jnp.asarray(mean)).sum())

    return Problem(of_batches, collapsed)


def binary() -> Problem:
    """Binary rows, a normal logit for each group; two global latents."""
    rng = np.random.default_rng(0)
    rate = 1 / (1 + np.exp(-groups(rng, -0.5, 0.8)))
    x = (rng.uniform(size=(NUM_GROUPS, ROWS_PER_GROUP)) < rate).astype(np.float32)
    groups_of = np.bincount(x.sum(1).astype(int), minlength=ROWS_PER_GROUP + 1).astype(float)
    nodes, weights = np.polynomial.hermite_e.hermegauss(NUM_NODES)
    x = jnp.asarray(x)

    def of_batches(batch_size: int) -> Model:
        def model() -> None:
            level, scale = hyper()
            with numpyro.plate("groups", NUM_GROUPS, batch_size, dim=-2) as index:
                z = numpyro.sample("z", dist.Normal(level, scale))
                with numpyro.plate("rows", ROWS_PER_GROUP, dim=-1):
                    numpyro.sample("x", dist.Bernoulli(logits=z), obs=x[index])

        return model

    def collapsed() -> None:
        level, scale = hyper()
        z = level + scale * nodes
        ones = np.arange(ROWS_PER_GROUP + 1)[:, None]
        log_lik = ones * jax.nn.log_sigmoid(z) + (ROWS_PER_GROUP - ones) * jax.nn.log_sigmoid(-z)
        log_weights = np.log(weights / weights.sum())
        log_marginal = jax.nn.logsumexp(log_lik + log_weights, axis=1)
        numpyro.factor("counts", (groups_of * log_marginal).sum())

    return Problem(of_batches, collapsed)


PROBLEMS: dict[str, Callable[[], Problem]] = {"normal": normal, "binary": binary}


def truth(collapsed: Model) -> dict[str, tuple[float, float]]:
    """{site: mean, standard deviation} by NUTS, in float64."""
    with jax.enable_x64(True):
        chain = MCMC(
            NUTS(collapsed),
            num_warmup=TRUTH_WARMUP,
            num_samples=TRUTH_SAMPLES,
            progress_bar=False,
        )
        chain.run(jax.random.key(1))
        samples = {name: np.asarray(x) for name, x in chain.get_samples().items()}
    return {name: (float(x.mean()), float(x.std())) for name, x in samples.items()}


def compare(name: str, batch_size: int, seed: int) -> tuple[str, ...]:
    """A row of the table."""
    problem = PROBLEMS[name]()
    expected = truth(problem.collapsed)
    report.say(f"{name}: {expected}")

    clock = time.perf_counter()
    processor = time.process_time()
    target = vi.targets.from_numpyro(problem.model(batch_size))

    def on_report(step: int, value: float) -> None:
        report.say(f"{name}: step {step:,}, ELBO {value:,.0f}")

    result = vi.fit(jax.random.key(seed), target, report=on_report, report_every=1_000)
    diagnostics = result.diagnostics
    seconds = time.perf_counter() - clock
    processor = time.process_time() - processor
    report.say(str(result))

    moments = result.moments(jax.random.key(seed + 1), rows=[0])
    draws, _ = result.sample(jax.random.key(seed + 2), 4000, rows=[0])
    off = {}
    guide_off = {}
    ratio = {}
    for site, (mean, sd) in expected.items():
        off[site] = abs(float(moments["mean"][site]) - mean) / sd
        guide_off[site] = abs(float(draws[site].mean()) - mean) / sd
        ratio[site] = float(moments["sd"][site]) / sd
    report.say(f"{name}: means {off} SD off, the guide's {guide_off}, SDs {ratio} times NUTS's")
    return (
        name,
        f"{batch_size:,}",
        "yes" if result.converged else "no",
        diagnostics.verdict,
        f"{max(off.values()):.2f}",
        f"{max(guide_off.values()):.2f}",
        f"{min(ratio.values()):.2f} to {max(ratio.values()):.2f}",
        f"{result.num_steps:,}",
        f"{seconds:.0f}",
        f"{processor:.0f}",
    )


HEAD = (
    "rows",
    "groups a batch",
    "converged",
    "verdict",
    "worst mean, SD",
    "the guide's own",
    "SDs over NUTS's",
    "steps",
    "seconds",
    "of the processor",
)


def main() -> None:
    kind = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=kind)
    parser.add_argument("--only", default=",".join(PROBLEMS), help="names of models, by commas")
    parser.add_argument("--batch_size", type=int, default=BATCH_SIZE, help="groups")
    parser.add_argument("--seed", type=int, default=0, help="of the fit")
    parser.add_argument("--write", action="store_true", help="into README.md")
    args = parser.parse_args()
    names = args.only.split(",")
    if unknown := set(names) - set(PROBLEMS):
        parser.error(f"no such models: {', '.join(sorted(unknown))}; see {', '.join(PROBLEMS)}.")
    if not 1 <= args.batch_size < NUM_GROUPS:
        parser.error(f"--batch_size expects 1 to {NUM_GROUPS - 1:,}; got {args.batch_size:,}.")
    rows = [compare(name, args.batch_size, args.seed) for name in names]
    text = report.markdown_table(HEAD, rows)
    print(text)
    if args.write:
        report.write_block(BLOCK_NAME, text)


if __name__ == "__main__":
    main()
