"""Every model against its reference by NUTS in float64: `python -m experiments.posteriordb.check
--root DIR [--only NAME]`.

Writes benchmarks/posteriordb_models.md, a row as soon as it is known; rows of earlier runs are
kept, so that a check may be interrupted, and one model checked again.
"""

import argparse
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin
from numpyro.infer import MCMC, NUTS, init_to_uniform

from experiments import posteriordb
from vi_jax import files

TABLE = "benchmarks/posteriordb_models.md"
REFERENCE_DRAWS = 10_000
# Funnels and heavy tails: smaller steps, more draws. ARMA: where |theta| > 1 the density falls like
# exp(-theta^400). A chain that starts there stays, and one that a large step takes there may too:
# under a dense mass matrix the kinetic energy of so large a momentum rounds to -inf (NumPyro 0.22),
# which is accepted.
HARD: dict[str, dict[str, Any]] = {
    "arma-arma11": {"dense_mass": False, "init_radius": 0.5},
    "eight_schools-eight_schools_centered": {"target_accept_prob": 0.99, "num_samples": 20_000},
    "eight_schools-eight_schools_noncentered": {"target_accept_prob": 0.95, "num_samples": 10_000},
    "gp_pois_regr-gp_pois_regr": {"target_accept_prob": 0.99, "num_samples": 10_000},
    "mcycle_gp-accel_gp": {"target_accept_prob": 0.99, "num_warmup": 3_000, "num_samples": 5_000},
    "one_comp_mm_elim_abs-one_comp_mm_elim_abs": {
        "target_accept_prob": 0.99,
        "num_samples": 10_000,
    },
}
HEADER = """# posteriordb's models against their reference draws

NumPyro's NUTS in float64, 4 chains, on one CPU core, by `python -m experiments.posteriordb.check`
(1,000 warm-up steps and a dense mass matrix, with the exceptions in its `HARD`). The worst
parameter of each posterior: its mean's distance from the reference in posterior standard deviations
and in standard errors (of both sides: 10,000 reference draws, our effective sample size), and its
standard deviation's relative error.

In one_comp_mm_elim_abs K_m and V_m have no variance (where K_m is large only V_m / K_m is
identified, and the half-Cauchy priors leave p(K_m) ~ K_m^-3): their standard deviations are those
of the few largest draws, and say little. The quartiles of K_m are 0.40, 0.95 and 2.2, against 0.36,
0.91 and 2.3 of a thousand reference draws.
mcycle_gp-accel_gp has reference moments only.

| posterior | D | draws | worst mean error, sd | in standard errors | worst sd error | \
min ESS | max R-hat | divergences | s |
|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|
"""


class Check(NamedTuple):
    """How one model's NUTS draws compare with its reference."""

    dimension: int
    num_draws: int
    mean_error: float  # worst |mean - reference| / sd
    stderrs: float  # worst |mean - reference| / standard error
    sd_error: float  # worst |sd / reference - 1|
    min_ess: float
    max_r_hat: float
    divergences: int
    seconds: float

    def row(self, name: str) -> str:
        """A line of the table."""
        cells = (
            f"{self.dimension} | {self.num_draws:,} | {self.mean_error:.3f} | "
            f"{self.stderrs:.1f} | {self.sd_error:.3f}"
        )
        return (
            f"| {name} | {cells} | {self.min_ess:,.0f} | {self.max_r_hat:.3f} | "
            f"{self.divergences} | {self.seconds:.0f} |"
        )


def check(
    name: str,
    root: Path,
    *,
    num_warmup: int,
    num_samples: int,
    target_accept_prob: float = 0.8,
    dense_mass: bool = True,
    init_radius: float = 2.0,
) -> Check:
    """Four chains of NUTS on the posterior, one after another, compared with its reference moments.

    They start uniformly on (-init_radius, init_radius) in unconstrained space.
    """
    posterior = posteriordb.load(name, root)
    start = time.perf_counter()
    start_at = init_to_uniform(radius=init_radius)
    kernel = NUTS(
        posterior.model,
        dense_mass=dense_mass,
        target_accept_prob=target_accept_prob,
        init_strategy=start_at,
    )
    mcmc = MCMC(
        kernel,
        num_warmup=num_warmup,
        num_samples=num_samples,
        num_chains=4,
        chain_method="sequential",
        progress_bar=False,
    )
    mcmc.run(jax.random.key(0), extra_fields=("diverging",))
    draws = posterior.flatten(mcmc.get_samples())
    seconds = time.perf_counter() - start
    chains = draws.reshape(4, num_samples, -1)
    ess = effective_sample_size(chains)
    mean_error = np.abs(draws.mean(0) - posterior.mean) / posterior.sd
    return Check(
        dimension=draws.shape[1],
        num_draws=len(draws),
        mean_error=mean_error.max(),
        stderrs=(mean_error / np.sqrt(1.0 / ess + 1.0 / REFERENCE_DRAWS)).max(),
        sd_error=np.abs(draws.std(0, ddof=1) / posterior.sd - 1.0).max(),
        min_ess=ess.min(),
        max_r_hat=float(split_gelman_rubin(chains).max()),
        divergences=int(mcmc.get_extra_fields()["diverging"].sum()),
        seconds=seconds,
    )


def main() -> None:
    """Checks the posteriors that were asked for, and writes their rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--root",
        type=Path,
        required=True,
        help="a clone of https://github.com/stan-dev/posteriordb",
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        help="only posteriors whose name contains this; may be repeated",
    )
    parser.add_argument("--num_warmup", type=int, default=1_000)
    parser.add_argument("--num_samples", type=int, default=2_500, help="per chain, of four")
    parser.add_argument("--table", type=Path, default=Path(TABLE))
    flags = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    known = (*posteriordb.names(), *posteriordb.MEANS_ONLY)
    rows = _read_rows(flags.table)
    for name in known:
        if not flags.only or any(part in name for part in flags.only):
            settings = {
                "num_warmup": flags.num_warmup,
                "num_samples": flags.num_samples,
            } | HARD.get(name, {})
            rows[name] = check(name, flags.root, **settings).row(name)
            # compiled samplers add up to more memory maps than a process may have
            jax.clear_caches()
            print(rows[name], flush=True)
            lines = [rows[key] for key in known if key in rows]
            files.write_text(flags.table, HEADER + "\n".join(lines) + "\n")


def _read_rows(table: Path) -> dict[str, str]:
    lines = files.read_text(table, follow=True).splitlines() if table.is_file() else []
    names = {line.split("|")[1].strip(): line for line in lines if line.startswith("| ")}
    return {name: line for name, line in names.items() if "-" in name}


if __name__ == "__main__":
    main()
