"""The size of a program by a rough guess from its config alone, more than it usually takes.

What comes out small needs no trace (`experiments.run.estimate`).
"""

import math
from typing import Any

from experiments import build
from experiments.overrides import flatten

FLOW_LAYERS = 10  # of a guide that is a flow
NUM_ARRAYS = 10  # of the size of a program's largest, in the rough guess


def sizes_in_words(config: Any) -> str:
    """The three largest sizes that a model's config names."""
    found = flatten(config.model.to_dict())
    sized = {name: value for name, value in found.items() if ints_in(value)}
    largest_first = sorted(sized, key=lambda name: -max(ints_in(sized[name])))
    shown = [f"{name}={sized[name]}" for name in largest_first[:3]]
    return "config.model: " + ", ".join(shown)


def samples_of(config: Any) -> int:
    """Samples of each example in a step, where the objective says how many."""
    number = config.objective.get("num_samples", 1)
    return number if isinstance(number, int) else 1


def num_bytes(config: Any, dataset: Any, rows: float) -> float:
    """Bytes of a program on so many rows, samples times examples; more than it usually takes."""
    fields = flatten(config.model.to_dict())
    traits = build.traits(config, dataset.num_levels)
    sizes = sum(size for value in fields.values() for size in ints_in(value))
    pixels = num_pixels(dataset)
    levels = dataset.num_levels if traits.is_by_level else 1
    places = pixels if traits.convolves else max(dataset.num_steps, 1)
    layers = FLOW_LAYERS if traits.flows else 1
    latents = max(
        (max(ints_in(v), default=0) for k, v in fields.items() if "latents" in k), default=0
    )
    put_out = latents**2 if traits.has_covariance else 0
    widths = pixels * levels + 2.0 * places * sizes + put_out
    weights = (sizes + pixels + put_out) * float(sizes)
    return NUM_ARRAYS * 4.0 * layers * (rows * widths + 4.0 * weights)


def ints_in(value: Any) -> list[int]:
    """The whole numbers above 0 in a value of a config, as tuples hold them."""
    if isinstance(value, tuple | list):
        return [size for part in value for size in ints_in(part)]
    is_size = isinstance(value, int) and not isinstance(value, bool) and value > 0
    return [value] if is_size else []


def num_pixels(dataset: Any) -> int:
    return math.prod(dataset.x_shape)
