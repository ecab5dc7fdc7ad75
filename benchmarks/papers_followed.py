"""Rows of docs/papers.md of what followed the first papers: semi-supervised models, mixtures as
guides, imputation.
"""

import math

from benchmarks.papers_row import Row

QUICK = {"num_samples": 100, "num_bracket": 0, "num_refit": 0}


def _semi_supervised() -> dict[str, Row]:
    """Test errors in per cent, over five draws of the labels."""
    both = {"seeds": (0, 1, 2, 3, 4), "seed_field": "data.label_seed", "unit": 100.0, **QUICK}
    what = "Kingma et al. 2014, 100 labels, test error in %"
    return {
        "m2": Row(
            f"{what}: M2",
            "semi_supervised:mnist",
            "11.97",
            "R",
            "test_error",
            12.0,
            8.0,
            **both,
        ),
        "m1_m2": Row(
            f"{what}: M1+M2",
            "semi_supervised:mnist_stacked",
            "3.33",
            "R",
            "test_error",
            5.0,
            3.3,
            **both,
        ),
    }


def _mixture_guide() -> dict[str, Row]:
    """MISELBO at equal steps."""
    what = "Kviman et al. 2022: gated VAE at 100,000 steps, guides of"
    return {
        "miselbo_1": Row(
            f"{what} S = 1 component",
            "gated:mnist_miselbo",
            "-",
            "-",
            "log_evidence",
            math.nan,
            math.nan,
            fields=("model.family.num_components=1",),
        ),
        "miselbo": Row(
            f"{what} S = 3 below S = 1",
            "gated:mnist_miselbo",
            "helps",
            "S",
            "log_evidence",
            0.3,
            0.3,
            against="miselbo_1",
            is_higher_better=True,
        ),
    }


def _imputation() -> dict[str, Row]:
    """Hidden pixels of the run of the row `aevb`: gains of log p in standard errors, and coverage
    of the 90 % intervals, 88 to 92 asked for.
    """
    rows = {}
    shared = {"run_of": "aevb", "num_samples": 1000}
    for missing in (20, 40, 60, 80):
        what = f"Rezende et al. 2014, {missing} % of the pixels missing, run of `aevb`"
        rows[f"imputation_{missing}"] = Row(
            f"{what}: Metropolis over pseudo-Gibbs over the marginal mean, lesser gain of log p in "
            "its standard errors",
            "vae:mnist",
            "figures",
            "S",
            "gain_in_stderrs",
            2.0,
            2.0,
            is_higher_better=True,
            missing=missing,
            **shared,
        )
        rows[f"coverage_{missing}"] = Row(
            f"{what}: % of images in the 90 % interval, by Metropolis; 88 to 92 asked for",
            "vae:mnist",
            "-",
            "-",
            "metropolis.coverage",
            math.nan,
            math.nan,
            missing=missing,
            unit=100.0,
            **shared,
        )
    return rows


def _groups() -> dict[str, Row]:
    """Rainforth et al. (2018) at 16 samples in 4 groups; at their 64 with a GPU."""
    shared = ("objective.num_samples=16", "objective.estimator=reparam", "train.num_steps=50000")
    miwae = ("objective.bound=miwae", "objective.bound.num_groups=4")
    kinds = {
        "iwae": ("IWAE", "84.52", ()),
        "miwae": ("MIWAE", "84.97", miwae),
        "piwae": ("PIWAE", "84.46", (*miwae, "objective.estimator=piwae")),
        "ciwae": (
            "CIWAE, beta 0.5",
            "85.24",
            ("objective.bound=ciwae", "objective.bound.beta=0.5"),
        ),
        "vae": ("VAE", "86.21", ("objective.bound=elbo",)),
    }
    return {
        f"rainforth_{kind}": Row(
            f"Rainforth et al. 2018, 16 samples for their 64, 50,000 steps: {name}",
            "iwae:mnist",
            published,
            "R",
            "log_evidence",
            math.nan,
            math.nan,
            fields=(*shared, *fields),
        )
        for kind, (name, published, fields) in kinds.items()
    }


def _estimators() -> dict[str, Row]:
    """The same bound, other gradients."""
    stl = ("objective=negative_bound", "objective.bound=elbo", "objective.estimator=stl")
    return {
        "iwae_k5_plain": Row(
            "IWAE, K = 5, plain reparameterised gradients",
            "iwae:mnist",
            "85.18 of 100 latents",
            "S",
            "log_evidence",
            math.nan,
            math.nan,
            fields=("objective.num_samples=5", "objective.estimator=reparam"),
        ),
        "iwae_k5_dreg": Row(
            "the same, doubly reparameterised, below it",
            "iwae:mnist",
            "0.28 of 100 latents",
            "S",
            "log_evidence",
            0.0,
            0.28,
            fields=("objective.num_samples=5",),
            against="iwae_k5_plain",
            is_higher_better=True,
            run_of="iwae_k5",
        ),
        "aevb_stl": Row(
            "`aevb` by STL, below the closed KL, -ELBO",
            "vae:mnist",
            "-",
            "-",
            "elbo",
            math.nan,
            0.0,
            fields=(*stl, "objective.num_samples=1"),
            num_samples=1000,
            against="aevb",
            is_higher_better=True,
        ),
    }


def _deep_latent_gaussian() -> dict[str, Row]:
    """At equal seeds and steps."""
    both = {"seeds": (0, 1, 2)}
    what = "Rezende et al. 2014, static MNIST, precision"
    return {
        "dlgm_diagonal": Row(
            f"{what} diagonal",
            "dlgm:mnist",
            "87.30",
            "R",
            "log_evidence",
            math.nan,
            87.30,
            **both,
        ),
        "dlgm_rank_one": Row(
            f"{what} of rank one, below diagonal",
            "dlgm:mnist",
            "0.70",
            "R",
            "log_evidence",
            0.3,
            0.7,
            fields=("model.family=rank_one_precision",),
            against="dlgm_diagonal",
            is_higher_better=True,
            **both,
        ),
    }


def _codes_and_levels() -> dict[str, Row]:
    """VQ-VAE and diffusion: densities of grey levels."""
    codes = {"num_samples": 1000, "num_bracket": 0, "num_refit": 0}
    return {
        "vq_codes": Row(
            "van den Oord et al. 2017: VQ-VAE of MNIST's grey levels, % of the codes used",
            "vq:mnist",
            "-",
            "-",
            "codes_used",
            95.0,
            95.0,
            is_higher_better=True,
            unit=100.0 / 64,
            **codes,
        ),
        "vq_bound": Row(
            "the same, bound of the nearest codes",
            "vq:mnist",
            "-",
            "-",
            "elbo",
            math.nan,
            math.nan,
            run_of="vq_codes",
            **codes,
        ),
        "vq_softened": Row(
            "the same, log p(x) under the softened guide",
            "vq:mnist",
            "-",
            "-",
            "log_evidence",
            math.nan,
            math.nan,
            run_of="vq_codes",
            **codes,
        ),
    }


def _disentangled() -> dict[str, Row]:
    """Over five seeds; the page has the mean and, in docs/papers.md, what it is of."""
    five = {"seeds": (0, 1, 2, 3, 4), "is_higher_better": True, **QUICK}
    what = "all 184,320 shapes, mutual information gap, median of 5 seeds"
    return {
        "beta_mig": Row(
            f"Higgins et al. 2017: beta-VAE, {what}",
            "disentangle:beta_full",
            "-",
            "-",
            "mig",
            math.nan,
            math.nan,
            is_median=True,
            **five,
        ),
        "beta_tc_mig": Row(
            f"Chen et al. 2018: beta-TC-VAE, {what}",
            "disentangle:beta_tc_full",
            "0.5",
            "R",
            "mig",
            0.35,
            0.5,
            is_median=True,
            **five,
        ),
    }


ROWS = {
    **_semi_supervised(),
    **_mixture_guide(),
    **_imputation(),
    **_groups(),
    **_estimators(),
    **_deep_latent_gaussian(),
    **_codes_and_levels(),
    **_disentangled(),
}
