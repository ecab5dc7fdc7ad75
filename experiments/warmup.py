"""Warm-ups that are longer than their run: of the learning rate, and of the KL's weight."""

from collections.abc import Iterator
from typing import Any

KL_WARMUP = "linear_warmup"


def shortened(fields: dict[str, Any]) -> list[str]:
    """Shortens, in place, the warm-ups that a run of train.num_steps would not reach the end of;
    notes of what was done.

    That of the learning rate becomes a tenth of the run, that of the KL's weight half of it.
    """
    train = fields.get("train")
    total = train.get("num_steps") if isinstance(train, dict) else None
    if not isinstance(total, int) or isinstance(total, bool) or total < 1:
        return []
    notes = []
    for where, group, key, share in _warmups(fields):
        steps = group[key]
        if isinstance(steps, int) and not isinstance(steps, bool) and steps >= total:
            group[key] = int(total * share) or int(key == "num_steps")
            notes.append(
                f"config.{where}.{key} is {group[key]:,} now: {steps:,} steps of warm-up are as "
                f"long as the run of {total:,} or longer."
            )
    return notes


def _warmups(fields: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], str, float]]:
    """(dotted group, the group, the field of its length, the share of a run that will do)."""
    rate = _inner(fields, "optim", "learning_rate")
    if "warmup_steps" in rate:
        yield "optim.learning_rate", rate, "warmup_steps", 0.1
    beta = _inner(fields, "objective", "beta")
    sites = {"": beta, **{f".{name}": each for name, each in beta.items()}}
    for name, each in sites.items():
        if isinstance(each, dict) and each.get("name") == KL_WARMUP and "num_steps" in each:
            yield f"objective.beta{name}", each, "num_steps", 0.5


def _inner(fields: dict[str, Any], *path: str) -> dict[str, Any]:
    """The group at a path; an empty one where there is none."""
    node: Any = fields
    for name in path:
        node = node.get(name) if isinstance(node, dict) else None
    return node if isinstance(node, dict) else {}
