"""Eight schools (Rubin 1981), non-centred: coaching effects in eight schools and their spread. No
download, some seconds.

    python -m experiments.posterior --config=configs/posterior/eight_schools.py

Expect mu of about 4.4 +- 3.3 and tau of about 3.6 +- 3.2, a k-hat of about 0.5, the verdict
"corrected only". Variant centered: `configs/posterior/eight_schools.py:centered`, the same
posterior in the coordinates that no Gaussian fits: the fit takes the non-centred ones for theta,
then a flow on top (some 30,000 gradients, a minute of which most is compiling), ends with a k-hat
of about 0.4, "reliable", and the table says all of it.
"""

from ml_collections import ConfigDict

from configs.base import check_variant

VARIANTS = ("noncentered", "centered")


def get_config(variant: str = "noncentered") -> ConfigDict:
    """The config of one variant."""
    check_variant(variant, VARIANTS, "configs/posterior/eight_schools.py")
    return ConfigDict(
        dict(
            name=f"eight_schools-{variant}",
            seed=0,
            # see experiments/posteriors/models.py; or file:PATH.py:FUNCTION, or posteriordb:NAME
            model=f"eight_schools_{variant}",
            data="",  # an .npz with the arguments of a model of FILE
            data_dir="",  # of posteriordb
            method="default",  # or a name in vi_jax.methods
            num_starts=1,
            combine="best",  # of many starts; "stack" takes all, weighed by their masses
            num_draws=4000,  # weighed at the end, and saved
            float64=True,
        )
    )
