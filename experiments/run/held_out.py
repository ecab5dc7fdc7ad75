"""The bits per spike of held-out bins of the validation split, by which numbers of a model are
chosen: its training objectives are not comparable, and test examples choose nothing.
"""

from collections.abc import Callable
from typing import Any

from experiments import sweep
from experiments.errors import UserError
from experiments.evals import copying, make_meter
from experiments.run import session
from experiments.run.session import Built

SPLIT = "validation"
BITS = "validation_hidden_bits_per_spike"


def require(built: Built) -> None:
    """Raises UserError where a swept number cannot be chosen by held-out bins."""
    swept = sweep.of_model(built.config)
    if not swept:
        return
    session.evaluated_split(built.config, built.dataset, SPLIT)
    reason = copying.make(built.subject)
    if isinstance(reason, str):
        raise UserError(
            f"config.sweep.{next(iter(swept))} is chosen by held-out bins of spike counts, and "
            f"{reason}."
        )


def make_measure(built: Built) -> Callable[[Any], dict[str, float]]:
    """Parameters of a run -> the measure, on the same bins for all runs; empty where nothing is
    swept that it chooses.
    """
    if not sweep.of_model(built.config):
        return lambda params: {}
    meter = make_meter(built.subject, (copying,))
    x, _ = session.evaluation_set(built.config, built.dataset, SPLIT)
    key = session.key_at(built.keys.evaluate, 1)

    def measure(params: Any) -> dict[str, float]:
        return {BITS: meter.measure(key, params, x).summary["hidden_bins"]["bits_per_spike"]}

    return measure
