"""The rows of Kingma & Welling (2013): figures 2 and 3, and appendix F."""

import math

from benchmarks.papers_row import Row

# of a point estimate in the place of full VB
POINT = ("objective=negative_elbo", "objective.beta=1.0", "train.keep_best=True")


def figure_2() -> dict[str, Row]:
    """Both methods of each panel: the value of AEVB is how far its ELBO is above wake-sleep's."""
    rows = {}
    for data, numbers in (("mnist", (3, 5, 10, 20, 200)), ("frey", (2, 5, 10, 20))):
        for num in numbers:
            sleep = f"figure2_{data}_{num}_wake_sleep"
            fields = (f"model.num_latents={num}",)
            what = f"Kingma & Welling 2013, figure 2: {data}, N_z = {num}"
            rest = {"num_samples": 100, "num_bracket": 0, "num_refit": 0, "fields": fields}
            config = f"aevb:{data}_wake_sleep"
            rows[sleep] = Row(
                f"{what}, wake-sleep",
                config,
                "curves",
                "S",
                "elbo",
                math.nan,
                math.nan,
                has_curve=True,
                **rest,
            )
            rows[f"figure2_{data}_{num}"] = Row(
                f"{what}: AEVB above wake-sleep",
                f"aevb:{data}",
                "above",
                "S",
                "elbo",
                0.0,
                0.0,
                against=sleep,
                is_higher_better=True,
                sigmas=2.0,
                has_curve=True,
                **rest,
            )
    return rows


def figure_3() -> dict[str, Row]:
    """Each method and number of training images: how far annealing is from importance sampling."""
    methods = {
        "": ("AEVB", ()),
        "_wake_sleep": ("wake-sleep", ("objective=wake_sleep",)),
        "_mcem": ("Monte Carlo EM", ("objective=mcem",)),
    }
    rows = {}
    for num, data in (("1,000", "mnist_1000"), ("50,000", "mnist")):
        for suffix, (method, fields) in methods.items():
            rows[f"figure3_{data}{suffix}"] = Row(
                f"Kingma & Welling 2013, figure 3: N = {num}, {method}; log p(x) by annealing less "
                "by adaptive importance samples",
                f"figure3:{data}",
                "curves",
                "S",
                "bracket.ais_above_adaptive",
                0.1,
                0.1,
                fields=fields,
                is_within=True,
                num_samples=1000,
                num_refit=0,
                num_reciprocal=200,
            )
    return rows


def full_vb() -> dict[str, Row]:
    """Predictive log p(x) of test images over that of the point estimate of the same network at the
    end of the same training; and the point estimate of the best validation ELBO over full VB's,
    which has no use for the 10,000 validation images.
    """
    rows = {}
    for num, data, seeds in (("1,000", "mnist_1000", (0, 1, 2)), ("50,000", "mnist", (0,))):
        own = f"full_vb_{data}"
        what = f"Kingma & Welling 2013, appendix F: N = {num}"
        is_small = data == "mnist_1000"
        rest = {
            "seeds": seeds,
            "num_samples": 1000,
            "num_bracket": 0,
            "num_refit": 0,
            "num_train": 1000,
        }
        rows[f"{own}_point"] = Row(
            f"{what}, the point estimate",
            f"full_vb:{data}",
            "none",
            "-",
            "log_evidence",
            math.nan,
            math.nan,
            fields=POINT,
            **rest,
        )
        goal = 3.0 if is_small else 0.5
        rows[own] = Row(
            f"{what}, predictive log p(x) over the point estimate's",
            f"full_vb:{data}",
            "none",
            "-",
            "predictive",
            goal,
            goal,
            against=f"{own}_point",
            is_higher_better=is_small,
            is_within=not is_small,
            sigmas=3.0 if is_small else 0.0,
            num_weights=50,
            **rest,
        )
        rows[f"{own}_early"] = Row(
            f"{what}, the point estimate of the best validation ELBO over full VB",
            f"full_vb:{data}",
            "none",
            "-",
            "log_evidence",
            -goal if is_small else goal,
            -goal if is_small else goal,
            against=own,
            fields=POINT,
            is_within=not is_small,
            checkpoint="best",
            **rest,
        )
    return rows
