"""A NumPyro model of your own: a function without arguments in a Python file.

python -m experiments.posterior --config=configs/posterior/file.py:my_models.py:my_model
"""

from ml_collections import ConfigDict


def get_config(path_and_function: str = "") -> ConfigDict:
    """The config of one file and function, PATH.py:FUNCTION."""
    path, _, function = path_and_function.rpartition(":")
    if not path.endswith(".py") or not function.isidentifier():
        raise ValueError(f"configs/posterior/file.py wants PATH.py:FUNCTION after its colon; got {path_and_function!r}.")
    return ConfigDict(
        dict(
            name=f"{path.split('/')[-1].removesuffix('.py')}-{function}", seed=0, model=f"file:{path}:{function}", data_dir="",
            method="default", num_starts=1, combine="best",
            num_draws=4000, float64=True,
        )
    )  # fmt: skip
