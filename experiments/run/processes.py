"""Many processes of one run: how they find each other, what they agree on, and the one that writes.

Every process runs the same command; each computes on its own devices and reads the rows of a batch
that lie there. The first one writes metrics, figures and tables, all of them the checkpoints.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

from absl import flags

from experiments import startup
from experiments.cli import UserError
from experiments.run import heartbeat

# Variables that say how many processes a launcher has started, where JAX finds out the rest by
# itself.
LAUNCHERS = {"SLURM": "SLURM_NTASKS", "Open MPI": "OMPI_COMM_WORLD_SIZE"}
_BOUND = 2**16  # bytes of an answer that the first process hands to the others


def define_flags() -> None:
    """The flags that every command has which may run in several processes."""
    flags.DEFINE_string(
        "coordinator",
        os.environ.get("JAX_COORDINATOR_ADDRESS", ""),
        "HOST:PORT of the first of several processes; found by itself under SLURM, Open MPI and "
        "on TPU pods; `off`: one process.",
    )
    flags.DEFINE_integer(
        "num_processes",
        startup.integer("JAX_NUM_PROCESSES", 0),
        "How many, with --coordinator.",
    )
    flags.DEFINE_integer(
        "process_id",
        startup.integer("JAX_PROCESS_ID", -1),
        "Which this one is, from 0, with --coordinator.",
    )


def join(coordinator: str, num_processes: int, process_id: int, *, timeout: int = 300) -> None:
    """Joins the processes of this run, before anything else touches a device; nothing where there
    is one process.

    Args:
      coordinator, num_processes, process_id: the flags; all three, or none where a launcher's
        variables say them.
      timeout: seconds that the others have to appear in.

    Raises:
      UserError: the flags do not go together, or the processes did not find each other.
    """
    given = bool(coordinator), num_processes > 0, process_id >= 0
    if coordinator == "off" or not (any(given) or launched()):
        return
    import jax

    if any(given) and not (all(given) and process_id < num_processes):
        raise UserError(
            "--coordinator, --num_processes and --process_id go together, with a process_id from "
            "0 to num_processes - 1; got "
            f"{coordinator or 'none'}, {num_processes} and {process_id}."
        )
    try:
        with heartbeat.phase("waiting for the other processes of this run"):
            if any(given):
                jax.distributed.initialize(
                    coordinator, num_processes, process_id, initialization_timeout=timeout
                )
            else:
                jax.distributed.initialize(initialization_timeout=timeout)
    except (KeyError, RuntimeError, ValueError) as error:  # KeyError: of a launcher's variables
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"the processes did not find each other within {timeout} s ({reason}). Every process "
            "runs the same command; the first "
            "listens at --coordinator, which the others have to reach; --coordinator=off runs "
            "this one alone."
        ) from None
    heart = heartbeat.current()
    if heart is not None and not is_first():
        heart.mute()


def launched() -> bool:
    """Whether a launcher says that this is one of several processes."""
    several = any(
        os.environ.get(name, "1").isdecimal() and int(os.environ.get(name, "1")) > 1
        for name in LAUNCHERS.values()
    )
    pod = "," in os.environ.get("TPU_WORKER_HOSTNAMES", "") or "," in os.environ.get(
        "TPU_PROCESS_ADDRESSES", ""
    )
    return several or pod or "MEGASCALE_COORDINATOR_ADDRESS" in os.environ


def is_first() -> bool:
    """Whether this is the process that writes."""
    import jax

    return jax.process_index() == 0


def say(text: str) -> None:
    """A line on stderr, from the first process."""
    if is_first():
        heartbeat.say(text)


def from_first(ask: Callable[[], Any]) -> Any:
    """What `ask` returns on the first process, on all of them: what it reads from or writes to a
    disk happens once.

    The answer is plain (what JSON holds); a UserError there is a UserError everywhere.
    """
    import jax

    if jax.process_count() == 1:
        return ask()
    answer: dict[str, Any] = {}
    if is_first():
        try:
            answer = {"value": ask()}
        except UserError as error:
            answer = {"error": str(error)}
    answer = _broadcast(answer)
    if "error" in answer:
        raise UserError(answer["error"])
    return answer["value"]


def any_of_them(here: bool) -> bool:
    """Whether it is so in any process: what they do together they decide together. All have to
    ask.
    """
    import jax

    if jax.process_count() == 1:
        return here
    import numpy as np
    from jax.experimental import multihost_utils

    return bool(np.any(multihost_utils.process_allgather(np.array(here))))


def most(here: float) -> float:
    """The largest number of any process. All have to ask."""
    import jax

    if jax.process_count() == 1:
        return here
    import numpy as np
    from jax.experimental import multihost_utils

    return float(np.max(multihost_utils.process_allgather(np.array(here))))


@contextlib.contextmanager
def first_holds(make: Callable[[], contextlib.AbstractContextManager[Any]]) -> Iterator[None]:
    """A context that the first process enters; where that raises UserError, it does in all."""
    with contextlib.ExitStack() as stack:
        from_first(lambda: stack.enter_context(make()))
        yield


def _broadcast(answer: dict[str, Any]) -> dict[str, Any]:
    import numpy as np
    from jax.experimental import multihost_utils

    text = json.dumps(answer).encode()
    if len(text) > _BOUND:
        raise ValueError(
            f"an answer of {len(text):,} bytes is more than the processes hand to each other, "
            f"{_BOUND:,}."
        )
    filled = np.frombuffer(text.ljust(_BOUND), np.uint8)
    return json.loads(
        np.asarray(multihost_utils.broadcast_one_to_all(filled)).astype(np.uint8).tobytes().decode()
    )
