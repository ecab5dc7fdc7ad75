"""What `benchmarks.neural` measures, a function for each row."""

import itertools
import json
import math
import time
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import report
from benchmarks.commands import run_command

PLDS = ("--config=configs/neural/plds.py", "--config.data.name=spikes:lorenz_spikes.npz")
PLDS_NEW = (
    "--config=configs/neural/plds.py:new_conditions",
    "--config.data.name=spikes:lorenz_spikes.npz",
)
SLDS = ("--config=configs/neural/slds.py",)
NUM_SIMULATIONS = 500
NUM_BINS = 100
NUM_NEURONS = 30
NUM_TRIALS = 100  # of the row of speed
NUM_DRAWS = 200
SHOWN_BINS = tuple(range(2, 100, 5))  # whose latents are ranked
COVERAGE = 0.9
Z_90 = 1.6448536
LOADING = 0.6  # of the simulated models
BASE_RATE = 0.1  # spikes a bin
PERCENT = 100.0


class Place(NamedTuple):
    """Where the runs are, and where their data are."""

    folder: Path
    data_dir: str


def _trained(place: Place, name: str, *flags: str) -> tuple[Path, float]:
    """The run folder of a row, trained if it is not there, and the processor's seconds of it."""
    run = place.folder / name
    cost = place.folder / f"{name}.cost.json"
    if not cost.exists():
        where = [f"--config.data.data_dir={place.data_dir}"] if "spikes:" in str(flags) else []
        spent = run_command("train", *flags, *where, f"--workdir={run}")
        report.write_json(str(cost), {"cpu_s": spent})
    return run, json.loads(cost.read_text())["cpu_s"]


def _rates(place: Place, name: str, flags: tuple[str, ...]) -> dict[str, Any]:
    run, spent = _trained(place, name, *flags)
    found = json.loads((run / "summary.json").read_text())
    kept = ("rate_r2", "latent_r2", "co_bps", "co_bps_share", "elbo", "log_evidence")
    numbers = {key: found[key] for key in kept if key in found}
    return {**numbers, "reliable_share": found.get("reliable_share", math.nan), "cpu_s": spent}


def plds(place: Place) -> dict[str, Any]:
    """The Poisson LDS where test conditions are trained on."""
    return _rates(place, "plds", PLDS)


def plds_new(place: Place) -> dict[str, Any]:
    """The Poisson LDS on new conditions."""
    return _rates(place, "plds_new", PLDS_NEW)


def told_of_rates(found: dict[str, Any]) -> str:
    """R² of rates and latents, co-smoothing and its share."""
    latents = " ".join(f"{value:.3f}" for value in found["latent_r2"])
    co = found["co_bps"]
    return (
        f"{found['rate_r2']:.4f}; {latents}; {co['mean']:.4f} ± {co['stderr']:.4f} "
        f"({PERCENT * found['co_bps_share']:.0f} % of the true rates')"
    )


def trust(place: Place) -> dict[str, Any]:
    """k-hats and the evidence above the ELBO, of the run of `plds`."""
    run, _ = _trained(place, "plds", *PLDS)
    spent = run_command("evaluate", f"--workdir={run}", "--num_samples=200", "--split=test")
    found = json.loads((run / "evaluation-test.json").read_text())
    return {
        "reliable_share": found["reliable_share"],
        "above": found["log_evidence"]["mean"] - found["elbo"]["mean"],
        "cpu_s": spent,
    }


def told_of_trust(found: dict[str, Any]) -> str:
    """The share of trials with a small k-hat, and the nats between the two bounds."""
    share = PERCENT * found["reliable_share"]
    return f"{share:.1f} % of the trials; {found['above']:.3f} nats in the mean"


def slds(place: Place) -> dict[str, Any]:
    """Sixteen starts of switching dynamics; the best by the ELBO of the training trials."""
    run, spent = _trained(place, "slds", *SLDS)
    shares = []
    elbos = []
    for folder in sorted(run.glob("replica_*")):
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        elbos.append([row["train/elbo"] for row in rows if "train/elbo" in row])
        shares.append(json.loads((folder / "summary.json").read_text())["states_share"])
    best = max(range(len(elbos)), key=lambda replica: elbos[replica][-1])
    falls = min(b - a for each in elbos for a, b in itertools.pairwise(each))
    return {
        "states_share": shares[best],
        "of_starts": sum(share >= 0.95 for share in shares),
        "num_starts": len(shares),
        "largest_fall": max(0.0, -falls),
        "cpu_s": spent,
    }


def told_of_states(found: dict[str, Any]) -> str:
    """The share of states, how many starts reach it, and whether the ELBO fell."""
    return (
        f"{PERCENT * found['states_share']:.1f} %, and 95 % of {found['of_starts']} of "
        f"{found['num_starts']} starts; the ELBO falls by {found['largest_fall']:.2g} nats at most"
    )


def _simulated_model(num_latents: int, *, forget: float | None = None) -> tuple[Any, Any]:
    """A Poisson LDS that turns, and its parameters."""
    import jax
    import jax.numpy as jnp

    import vi_jax as vi

    columns = [vi.models.Column("poisson")] * NUM_NEURONS
    model = vi.models.poisson_lds(columns, num_latents=num_latents, forget=forget)
    params = model.init(jax.random.key(0))
    shape = (NUM_NEURONS, num_latents)
    params["loadings"] = LOADING * jax.random.normal(jax.random.key(1), shape)
    params["offset"] = jnp.full(NUM_NEURONS, math.log(BASE_RATE))
    return model, params


def calibration(place: Place) -> dict[str, Any]:
    """Ranks of latents among samples of the posterior, at the parameters that simulated the trials,
    and the coverage of its bands.
    """
    import jax
    import jax.numpy as jnp

    import vi_jax as vi

    del place
    began = time.process_time()
    model, params = _simulated_model(2)
    blank = {
        "values": jnp.zeros((NUM_BINS, NUM_NEURONS)),
        "observed": jnp.ones((NUM_BINS, NUM_NEURONS), bool),
    }
    densities: Any = model.densities
    bins = jnp.array(SHOWN_BINS)

    class Shown:
        """The posterior of the bins that are ranked."""

        def __init__(self, q: Any) -> None:
            self.q = q

        def sample(self, key: Any, shape: tuple[int, ...]) -> Any:
            return self.q.sample(key, shape)[:, bins].reshape(*shape, -1)

    def simulate(key: Any) -> tuple[Any, Any]:
        key_z, key_x = jax.random.split(key)
        z = densities.prior(params, blank).sample(key_z)
        return z[bins].ravel(), densities.decode(params, blank, z).sample(key_x)

    def infer(key: Any, x: Any) -> Any:
        del key
        return Shown(densities.guide(params, x))

    def covered(key: Any) -> Any:
        key_z, key_x = jax.random.split(key)
        z = densities.prior(params, blank).sample(key_z)
        q = densities.guide(params, densities.decode(params, blank, z).sample(key_x))
        return (jnp.abs(z - q.mean) < Z_90 * jnp.sqrt(q.variance)).mean()

    found = vi.diagnostics.calibrate(
        jax.random.key(2), simulate, infer, num_simulations=NUM_SIMULATIONS, num_draws=NUM_DRAWS
    )
    keys = jax.random.split(jax.random.key(3), NUM_SIMULATIONS)
    coverage = jax.lax.map(jax.jit(covered), keys, batch_size=50)
    return {
        "least_p": float(jnp.min(found.uniform_p)),
        "num_ranked": len(SHOWN_BINS) * 2,
        "coverage": float(coverage.mean()),
        "coverage_stderr": float(coverage.std() / NUM_SIMULATIONS**0.5),
        "cpu_s": time.process_time() - began,
    }


def told_of_calibration(found: dict[str, Any]) -> str:
    """The least p, and the coverage with its standard error over trials."""
    return (
        f"{found['least_p']:.2g} of {found['num_ranked']} latents; "
        f"{found['coverage']:.4f} ± {found['coverage_stderr']:.4f}"
    )


def speed(place: Place) -> dict[str, Any]:
    """Processor time of an iteration over all trials, after the first, over the trials."""
    import jax
    import jax.numpy as jnp

    import vi_jax as vi

    del place
    began = time.process_time()
    model, params = _simulated_model(3, forget=1.0)
    loss = vi.losses.negative_elbo(model)
    blank = {
        "values": jnp.zeros((NUM_BINS, NUM_NEURONS)),
        "observed": jnp.ones((NUM_BINS, NUM_NEURONS), bool),
    }

    def one(key: Any) -> Any:
        key_p, key_x = jax.random.split(key)
        return model.generate(key_p, params, blank).sample(key_x)

    x = jax.vmap(one)(jax.random.split(jax.random.key(4), NUM_TRIALS))

    @jax.jit
    def step(params: Any) -> Any:
        return loss(params, jax.random.key(5), x, jnp.int32(0))[1].params

    params = jax.block_until_ready(step(params))
    num = 10
    start = time.process_time()
    for _ in range(num):
        params = step(params)
    jax.block_until_ready(params)
    each = (time.process_time() - start) / num / NUM_TRIALS
    return {"milliseconds": 1_000.0 * each, "cpu_s": time.process_time() - began}


def told_of_speed(found: dict[str, Any]) -> str:
    """Milliseconds of the processor."""
    return f"{found['milliseconds']:.2f} ms of the processor"
