"""A NumPyro model of your own: a function in a Python file, without arguments or with those of an
.npz.

    python -m experiments.posterior --config=configs/posterior/file.py:my_models.py:my_model
    python -m experiments.posterior --config=configs/posterior/file.py:my_models.py:my_model \\
        --config.data=FILE.npz

The arrays of the .npz are passed by name: `np.savez("FILE.npz", x=x, y=y, num_groups=3)` for `def
my_model(x, y, num_groups)`; one number comes as Python's own (a plate's size, say), arrays as
JAX's. Nothing is unpickled.
"""

from ml_collections import ConfigDict


def get_config(path_and_function: str = "") -> ConfigDict:
    """The config of one file and function, PATH.py:FUNCTION."""
    path, _, function = path_and_function.rpartition(":")
    if not path.endswith(".py") or not function.isidentifier():
        raise ValueError(
            "configs/posterior/file.py wants PATH.py:FUNCTION after its colon; got "
            f"{path_and_function!r}."
        )
    return ConfigDict(
        dict(
            name=f"{path.split('/')[-1].removesuffix('.py')}-{function}",
            seed=0,
            model=f"file:{path}:{function}",
            data="",
            data_dir="",
            method="default",
            num_starts=1,
            combine="best",
            num_draws=4000,
            float64=True,
        )
    )
