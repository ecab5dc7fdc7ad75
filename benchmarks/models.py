"""What each kind of model reaches on the embedded digits: every row is one config, trained in full
by the command and measured on the test images.

    python -m benchmarks.models                     # about 10 minutes on 2 cores
    python -m benchmarks.models --rows=ladder:digits,priors:vamp
    python -m benchmarks.models --write             # and put the table into benchmarks/README.md
    python -m benchmarks.models --folder=runs/kinds # keep the run folders, figures with them

A row that is in --folder already, finished, is read rather than trained again. log p(x) is by
importance sampling, with as many samples as the config has it; both are in nats an image.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import report

ROWS = {
    "vae:digits": "a VAE, Kingma & Welling 2013",
    "aevb:digits": "the networks of Kingma & Welling 2013, Adagrad",
    "full_vb:digits": "a posterior over the decoder's weights too, appendix F of the same",
    "figure3:digits_mcem": "Monte Carlo EM of 3 latents, figure 3 of the same",
    "iwae:one_layer": "IWAE, one layer of latents, Burda et al. 2016",
    "iwae:two_layers": "IWAE, two layers",
    "ladder:digits": "a ladder of five layers, Sonderby et al. 2016",
    "bidirectional:digits": "six bidirectional layers on one residual path, Kingma et al. 2016",
    "gated:digits": "a gated VAE, Tomczak & Welling 2018",
    "dlgm:diagonal": "a deep latent Gaussian model of two layers, Rezende et al. 2014",
    "dlgm:rank_one": "the same, guides of rank-one precision",
    "priors:vamp": "VampPrior, gated layers, Tomczak & Welling 2018",
    "priors:mixture": "a mixture of 100 Gaussians as prior",
    "priors:flow": "real NVP as prior, Chen et al. 2017",
    "discrete:belief_net": "a belief net of two layers under VIMCO, Mnih & Rezende 2016",
    "discrete:wake_sleep": "the same net under reweighted wake-sleep, Bornschein & Bengio 2015",
    "discrete:disarm": "a discrete VAE under DisARM, Dong et al. 2020",
    "discrete:rebar": "a discrete VAE under REBAR, Tucker et al. 2017",
    "semi_supervised:digits": "M2, 50 of the digits labelled, Kingma et al. 2014",
    "conditional:digits": "a conditional VAE, the image given its class, Sohn et al. 2015",
}
HEAD = ("config", "what", "steps", "test ELBO", "test log p(x)", "seconds")


def train(row: str, folder: Path) -> float:
    """Trains a row's config in a process of its own; returns its seconds.

    Raises:
      RuntimeError: the command failed; with the end of what it said.
    """
    config = f"configs/{row.split(':')[0]}.py:{row.split(':')[1]}"
    command = [sys.executable, "-m", "experiments.train", f"--config={config}"]
    began = time.perf_counter()
    done = subprocess.run(
        [*command, f"--workdir={folder}"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{config} failed: {done.stderr[-2000:]}")
    return time.perf_counter() - began


def measure(row: str, folder: Path) -> dict[str, Any]:
    """The record of a row, trained if it is not in the folder."""
    record = folder / "row.json"
    if record.exists():
        return json.loads(record.read_text())
    seconds = train(row, folder / "run")
    summary = json.loads((folder / "run" / "summary.json").read_text())
    config = json.loads((folder / "run" / "config.json").read_text())
    measured = {
        "steps": config["train"]["num_steps"],
        "elbo": summary["elbo"],
        "log_evidence": summary["log_evidence"],
        "num_importance_samples": summary["num_importance_samples"],
        "seconds": seconds,
    }
    report.write_json(str(record), measured)
    return measured


def describe(results: dict[str, dict[str, Any]]) -> str:
    """The table and its note."""
    rows = [
        [
            f"`{row}`",
            ROWS[row],
            f"{found['steps']:,}",
            _with_error(found["elbo"]),
            _with_error(found["log_evidence"]),
            f"{found['seconds']:.0f}",
        ]
        for row, found in results.items()
    ]
    numbers = {found["num_importance_samples"] for found in results.values()}
    samples = " or ".join(f"{number:,}" for number in sorted(numbers))
    note = (
        f"Nats an image, over the 360 test digits, with standard errors over them; log p(x) by "
        f"{samples} importance samples; seconds of the whole command, evaluation and figures with "
        f"it, beside whatever else ran. {report.used('jax', 'flax', 'optax', 'numpyro')}"
    )
    return f"{report.markdown_table(HEAD, rows)}\n\n{note}"


def _with_error(found: dict[str, float]) -> str:
    return f"{found['mean']:.2f} ± {found['stderr']:.2f}"


def read_flags() -> argparse.Namespace:
    """The flags; the rows there are, where one is not."""
    parser = report.make_parser(__doc__.split("\n\n")[0])
    parser.add_argument("--rows", default=",".join(ROWS), help="CONFIG:VARIANT, by commas")
    parser.add_argument("--folder", help="keep the run folders here")
    flags = parser.parse_args()
    unknown = set(flags.rows.split(",")) - set(ROWS)
    if unknown:
        parser.error(f"no row {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    return flags


def main() -> None:
    flags = read_flags()
    results = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(flags.folder or scratch)
        for row in flags.rows.split(","):
            report.say(f"{row}: {ROWS[row]}")
            place = folder / row.replace(":", "-")
            place.mkdir(parents=True, exist_ok=True)
            results[row] = measure(row, place)
        report.finish("models", describe(results), flags, results)


if __name__ == "__main__":
    main()
