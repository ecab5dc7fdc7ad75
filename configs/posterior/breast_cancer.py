"""Logistic regression of a tumour's kind on 30 measures of its cells (Street et al. 1993, in
scikit-learn), N(0, 1) weights.

    python -m experiments.posterior --config=configs/posterior/breast_cancer.py
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """One config."""
    return ConfigDict(
        dict(
            name="breast_cancer",
            seed=0,
            model="breast_cancer",
            data="",
            data_dir="",
            method="default",
            num_starts=1,
            combine="best",
            num_draws=4000,
            float64=True,
        )
    )
