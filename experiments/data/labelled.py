"""Training labels that are kept, a few of each class, for semi-supervised learning."""

from typing import Any

import numpy as np

from experiments.data.base import DataError, Dataset

HIDDEN = -1  # the label of a training row that is not known


def with_few_labels(dataset: Dataset, config_data: Any) -> Dataset:
    """The data set with the labels of `config.data.num_labels` training rows, as many of each class
    as can be, chosen by `label_seed`; the others are HIDDEN. Labelled rows stand
    `label_copies` times at the end of the training split. As it is where num_labels is 0.

    Raises:
      DataError: the data have no labels, or too few of a class, or a number cannot be meant.
    """
    num = config_data.num_labels
    if not num:
        return dataset
    copies = config_data.label_copies
    split = dataset.train
    if split.labels is None or not isinstance(split.x, np.ndarray):
        raise DataError(
            "config.data.num_labels is of images in memory with labels; set it to 0, or add labels "
            "to the data."
        )
    classes = np.unique(split.labels)
    if num % len(classes) or num < 0 or copies < 1:
        raise DataError(
            f"config.data.num_labels={num} is no multiple of the {len(classes)} classes, or "
            f"label_copies={copies} is below 1; give a multiple, and 1 copy or more."
        )
    rng = np.random.default_rng(config_data.label_seed)
    chosen = []
    for each in classes:
        rows = np.flatnonzero(split.labels == each)
        if len(rows) < num // len(classes):
            raise DataError(
                f"class {each} has {len(rows)} training rows, fewer than the "
                f"{num // len(classes)} that config.data.num_labels={num} asks for."
            )
        chosen.append(rng.choice(rows, num // len(classes), replace=False))
    kept = np.sort(np.concatenate(chosen))
    labels = np.full(split.num, HIDDEN, np.int64)
    labels[kept] = split.labels[kept]
    order = np.concatenate([np.arange(split.num), np.tile(kept, copies - 1)])
    ids = None if split.ids is None else np.asarray(split.ids)[order]
    return dataset._replace(train=split._replace(x=split.x[order], labels=labels[order], ids=ids))
