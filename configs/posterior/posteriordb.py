"""A posterior of posteriordb by its name, against its reference draws' means and standard
deviations.

    python -m experiments.posterior --config=configs/posterior/posteriordb.py:arK-arK \\
        --config.data_dir=CLONE_OF_POSTERIORDB
"""

from ml_collections import ConfigDict


def get_config(posterior: str = "arK-arK") -> ConfigDict:
    """The config of one posterior."""
    return ConfigDict(
        dict(
            name=f"posteriordb-{posterior}",
            seed=0,
            model=f"posteriordb:{posterior}",
            data="",
            data_dir="",
            method="default",
            num_starts=1,
            combine="best",
            num_draws=4000,
            float64=True,
        )
    )
