"""What is known of the training data and of the run, for the arguments of choices that ask for it
by name.
"""

from typing import Any

import numpy as np

from experiments import build

NUM_ROWS = 1_000  # training images for `rows`
NUM_ROWS_OF_TABLE = 100_000  # of a table, for where its columns start
MIN_PROBABILITY = 1e-3  # of a pixel of the mean image, whose logit a decoder may start at


def of_data(config: Any, dataset: Any) -> dict[str, Any]:
    """The facts of a data set, by the names of arguments."""
    labels = dataset.train.labels
    if dataset.table is not None:
        num = NUM_ROWS_OF_TABLE // max(dataset.num_steps, 1)
        x = {name: array[: max(num, 1)] for name, array in dataset.train.x.items()}
        return of_table(config, dataset.table, dataset.train.num, x)
    mean = mean_image(dataset)
    known = {
        **build.sizes(config),
        "x_shape": tuple(dataset.train.x.shape[1:]),
        "num_levels": dataset.num_levels,
        "num_data": dataset.train.num,
        "mean": mean,
        "rows": first_rows(config, dataset),
        "output_bias": _output_bias(config, dataset.num_levels, mean),
    }
    return known if labels is None else {**known, "num_classes": int(labels.max()) + 1}


def of_batch(config: Any, batch: Any) -> dict[str, Any]:
    """The same where a batch is all that is left of the data (`nonfinite.Batch`): what only decides
    where parameters start is made up, since they are read.
    """
    if batch.table is not None:
        return of_table(config, batch.table, batch.num_data)
    known = {
        **build.sizes(config),
        "x_shape": batch.x_shape,
        "num_levels": batch.num_levels,
        "num_data": batch.num_data,
        "mean": np.full(batch.x_shape, 0.5),
        "rows": np.full((NUM_ROWS, *batch.x_shape), 0.5, np.float32),
        "output_bias": None,
    }
    return known if batch.num_classes is None else {**known, "num_classes": batch.num_classes}


def of_table(
    config: Any, table: Any, num_data: int, x: dict[str, np.ndarray] | None = None
) -> dict[str, Any]:
    """The facts of a table (`experiments.data.columns.Table`), or of sequences.

    Args:
      config: of the run.
      table: its columns.
      num_data: training rows, or sequences.
      x: some of them, whose marginals are where parameters start; nowhere in particular where they
        are not given, since they are read.
    """
    known = {
        **build.sizes(config),
        "columns": table_columns(table, x),
        "num_covariates": table.num_covariates,
        "has_exposure": table.has_exposure,
        "x_shape": table.x_shape,
        "num_data": num_data,
    }
    if not table.num_steps:
        return known
    trials = None if x is None else {name: leaf[:NUM_ROWS] for name, leaf in x.items()}
    return {**known, "max_steps": table.num_steps, "trials": trials}


def table_columns(table: Any, x: dict[str, np.ndarray] | None = None) -> tuple[Any, ...]:
    """What a model of tables is told of each column; arguments as of `of_table`."""
    from vi_jax.models.table_vae import Column, with_starts

    plain = tuple(
        Column(
            kind=column.kind,
            num_levels=max(len(column.levels), 1),
            scale=column.model_scale,
        )
        for column in table.columns
    )
    if x is None:
        return plain
    if table.num_steps:  # steps are rows
        x = {name: array.reshape(-1, *array.shape[2:]) for name, array in x.items()}
    return with_starts(plain, x["values"], x["observed"], x.get("exposure"))


def _output_bias(config: Any, num_levels: int, mean: np.ndarray) -> np.ndarray | None:
    """Where a Bernoulli decoder's last bias starts: the logit of the mean image (Burda et al. 2016,
    appendix C).
    """
    if build.units(config, num_levels).support != "binary":
        return None
    clipped = np.clip(mean, MIN_PROBABILITY, 1.0 - MIN_PROBABILITY)
    return np.log(clipped / (1.0 - clipped))[..., None]


def first_rows(config: Any, dataset: Any) -> np.ndarray:
    """Up to NUM_ROWS training images in an order of config.data.shuffle_seed, in [0, 1]: what
    pseudo-inputs and codebooks start at.
    """
    num = dataset.train.num
    order = np.random.default_rng(config.data.shuffle_seed).permutation(num)[:NUM_ROWS]
    rows = np.asarray(dataset.train.x[np.sort(order)], np.float32)
    return rows[np.argsort(np.argsort(order))] / (dataset.num_levels - 1)


def mean_image(dataset: Any) -> np.ndarray:
    """The mean training image, in [0, 1]."""
    images = dataset.train.x[np.arange(min(dataset.train.num, 60_000))]
    return images.mean(0, dtype=np.float64) / (dataset.num_levels - 1)
