"""Rows of docs/papers.md that are trained where there is a GPU, 15 minutes each: their commands are
on the page, and a run of all rows leaves them out.
"""

import math

from benchmarks.papers_row import Row

DRAWN = "model.kl=drawn"
IWAE = {  # table 1 of Burda et al. (2016), MNIST: -log p(x) by layers, objective and K
    (1, "vae", 1): 86.76,
    (1, "vae", 5): 86.47,
    (1, "vae", 50): 86.35,
    (1, "iwae", 5): 85.54,
    (1, "iwae", 50): 84.78,
    (2, "vae", 1): 85.33,
    (2, "vae", 5): 85.01,
    (2, "vae", 50): 84.78,
    (2, "iwae", 5): 83.89,
    (2, "iwae", 50): 82.90,
}


def _iwae(layers: int, objective: str, num: int, published: float) -> Row:
    fields = [f"objective.num_samples={num}"]
    if objective == "vae":
        fields = ["objective=negative_elbo", *fields]
    return Row(
        f"Burda et al. 2016, table 1: {layers} layers, {objective.upper()}, K = {num}",
        "iwae:mnist" if layers == 1 else "iwae:mnist_two_layers",
        f"{published:.2f}",
        "S",
        "log_evidence",
        published + 0.2,
        published,
        fields=tuple(fields),
        on_gpu=True,
    )


def _one(what: str, config: str, goal: float, *fields: str) -> Row:
    published = f"{goal:g}"
    return Row(
        what,
        config,
        published,
        "R",
        "log_evidence",
        goal,
        goal,
        fields=fields,
        on_gpu=True,
    )


def _groups(name: str, published: float, *fields: str) -> Row:
    """Rainforth et al. (2018) at their 64 samples."""
    return Row(
        f"Rainforth et al. 2018, {name}, 64 samples",
        "iwae:mnist",
        f"{published:.2f}",
        "R",
        "log_evidence",
        math.nan,
        published,
        fields=("objective.estimator=reparam", "objective.num_samples=64", *fields),
        on_gpu=True,
    )


MIWAE = ("objective.bound=miwae", "objective.bound.num_groups=8")
ROWS = {
    "gpu_gated_vae": _one(
        "gated VAE, half a million steps", "gated:mnist", 84.45, "train.num_steps=500000"
    ),
    "gpu_gated_iwae5": _one(
        "gated IWAE-5, half a million steps", "gated:mnist_iwae5", 83.37, "train.num_steps=500000"
    ),
    "gpu_gated_iwae50": _one(
        "gated IWAE-50, half a million steps",
        "gated:mnist_iwae5",
        82.88,
        "train.num_steps=500000",
        "objective.num_samples=50",
    ),
    "gpu_gated_vamp": _one(
        "gated VAE under a VampPrior of 500, half a million steps",
        "gated:mnist",
        82.29,
        "train.num_steps=500000",
        "model.prior=vamp",
        "model.prior.num_components=500",
        DRAWN,
    ),
    "gpu_dense": _one("dense layers alone: twelve bidirectional ones", "bidirectional:mnist", 81.1),
    "gpu_conv_flow": _one(
        "Xu et al. 2019: convolutions, one layer of 40 latents under a flow",
        "gated:mnist_flow",
        78.6,
        "model.network=conv",
    ),
    "gpu_conv_bidirectional": _one(
        "twelve bidirectional layers of convolutions", "bidirectional:mnist_conv", 79.5
    ),
    **{
        f"gpu_{objective}{num}_layers{layers}": _iwae(layers, objective, num, published)
        for (layers, objective, num), published in IWAE.items()
    },
    "gpu_rainforth_iwae": _groups("IWAE", 84.52),
    "gpu_rainforth_miwae": _groups("MIWAE (8, 8)", 84.97, *MIWAE),
    "gpu_rainforth_piwae": _groups("PIWAE (8, 8)", 84.46, *MIWAE, "objective.estimator=piwae"),
    "gpu_rainforth_ciwae": _groups(
        "CIWAE, beta 0.5", 85.24, "objective.bound=ciwae", "objective.bound.beta=0.5"
    ),
}
