"""The alarms of an evaluation."""

from typing import Any

from experiments.evals import copying
from experiments.evals.base import Measures
from experiments.evals.collapse import collapse_alarm


def alarms(measures: Measures, config: Any, step: int) -> list[str]:
    """What to tell of a run, each in a sentence, the gravest first."""
    collapsed = collapse_alarm(measures, config, step)
    return [*([collapsed] if collapsed else []), *copying.alarms(measures, config, step)]
