"""The rows of docs/papers.md: a published number, the config and fields that stand beside it, and
what counts as reached.

Published values are those of the papers, or of the reproduction that is named. Confidence: S, read
in the paper or its authors' code; R, restated by another paper or a reproduction; M, from memory of
a secondary source.
"""

import math

from benchmarks import papers_followed, papers_gpu, papers_kingma
from benchmarks.papers_row import CONFIDENCES, NATS, Row

__all__ = ["CONFIDENCES", "NATS", "ROWS", "Row"]

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
    **papers_kingma.figure_2(),
    **papers_kingma.figure_3(),
    **papers_kingma.full_vb(),
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
        "Sonderby et al. 2016: a ladder of five layers, layer norm for its batch norm",
        "ladder:mnist",
        "81.84",
        "S",
        "log_evidence",
        84.0,
        82.4,
    ),
    "discrete_vae": Row(
        "Dong et al. 2020: discrete VAE, DisARM, train -ELBO at 100,000 steps",
        "discrete:mnist",
        "102.5 at 1 M",
        "M",
        "train/elbo",
        106.0,
        103.0,
        num_samples=100,
        num_bracket=0,
        num_refit=0,
    ),
    "conditional": Row(
        "IWAE-5 given the class, below IWAE-5 without",
        "conditional:mnist",
        "3.8",
        "R",
        "log_evidence",
        2.5,
        3.5,
        against="iwae_k5",
        is_higher_better=True,
    ),
    **papers_followed.ROWS,
    **papers_gpu.ROWS,
}
