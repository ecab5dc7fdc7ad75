"""The rows of docs/papers.md: a published number, the config and fields that stand beside it, and
what counts as reached.

Published values are those of the papers, or of the reproduction that is named. Confidence: S, read
in the paper or its authors' code; R, restated by another paper or a reproduction; M, from memory of
a secondary source.
"""

import math
from typing import NamedTuple


class Row(NamedTuple):
    """One line of the table."""

    what: str
    config: str  # FILE:VARIANT of configs/
    published: str
    confidence: str
    # of evaluation-test.json: a mean with its standard error, or a number. Nats of log p are turned
    # round, so that lower is better
    measure: str
    passes: float
    beats: float
    fields: tuple[str, ...] = ()  # as --config.FIELD=VALUE
    seeds: tuple[int, ...] = (0,)
    num_samples: int = 5000  # K of log p(x)
    num_bracket: int = 200  # examples between annealed bounds; 0: the latents are not real
    num_refit: int = 50  # examples to which the guide is refitted
    against: str = ""  # the row that this one is to be below: the value is the difference
    is_higher_better: bool = False


NATS = ("elbo", "log_evidence")
CONFIDENCES = ("S", "R", "M", "-")
ROWS = {
    "aevb": Row(
        "Kingma & Welling 2013: 784-500-20, test -ELBO",
        "vae:mnist",
        "101 to 103",
        "S",
        "elbo",
        95.0,
        94.0,
        seeds=(0, 1, 2),
        num_samples=1000,
    ),
    "gated_vae": Row(
        "Tomczak & Welling 2018: gated VAE 784-300-300-40",
        "gated:mnist",
        "84.45",
        "S",
        "log_evidence",
        84.9,
        84.45,
    ),
    "gated_iwae5": Row(
        "gated IWAE of 5 samples, doubly reparameterised",
        "gated:mnist_iwae5",
        "83.37",
        "S",
        "log_evidence",
        84.0,
        83.4,
    ),
    "gated_mixture": Row(
        "gated VAE under a mixture of 500 Gaussians",
        "gated:mnist_mixture",
        "82.29",
        "S",
        "log_evidence",
        83.3,
        82.29,
    ),
    "gated_flow": Row(
        "gated VAE under a flow of 8 coupling layers",
        "gated:mnist_flow",
        "82.29",
        "S",
        "log_evidence",
        83.3,
        82.29,
    ),
    "iwae_k1": Row(
        "Burda et al. 2016: one layer of 50, K = 1",
        "iwae:mnist",
        "86.76",
        "S",
        "log_evidence",
        87.3,
        86.76,
        fields=("objective.num_samples=1", "objective.estimator=reparam"),
    ),
    "iwae_k5": Row(
        "the same, K = 5",
        "iwae:mnist",
        "85.54",
        "S",
        "log_evidence",
        math.nan,
        85.54,
        fields=("objective.num_samples=5",),
    ),
    "iwae_k50": Row(
        "the same, K = 50",
        "iwae:mnist",
        "84.78",
        "S",
        "log_evidence",
        math.nan,
        84.78,
        fields=("objective.num_samples=50",),
    ),
    "iwae_k5_over_k1": Row(
        "K = 1 less K = 5: the order of the bounds",
        "iwae:mnist",
        "1.22",
        "S",
        "log_evidence",
        0.0,
        1.22,
        fields=("objective.num_samples=5",),
        against="iwae_k1",
        is_higher_better=True,
    ),
    "ladder": Row(
        "Sonderby et al. 2016: a ladder of five layers, layer norm",
        "ladder:mnist",
        "81.84",
        "S",
        "log_evidence",
        84.0,
        82.4,
    ),
}
