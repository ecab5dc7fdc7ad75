"""The two ways in which a command ends early on purpose, and what is said of an error in the
user's own code.
"""

import sysconfig
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OURS = tuple(ROOT / name for name in ("experiments", "vi_jax", "configs"))
LIBRARY = Path(sysconfig.get_path("stdlib")).resolve()
PACKAGES = {"site-packages", "dist-packages"}


class UserError(Exception):
    """What went wrong, in one sentence with the remedy; printed as it stands, exit code 2."""


class Requeue(BaseException):
    """A run was asked to stop and has saved what it had: the same command goes on from there, exit
    code 75 (EX_TEMPFAIL).
    """


def in_own_code(error: BaseException) -> str | None:
    """`FILE, line N: TYPE: MESSAGE.` of an error that went through code of the user's own.

    That is a file which is neither ours nor installed, called by one of ours: a network, a model of
    a posterior, a module beside it. The innermost such line is named.

    Returns:
      None where no such file was on the way; then the error is a fault of ours.
    """
    own = None
    is_below_ours = False
    for place in traceback.extract_tb(error.__traceback__):
        path = Path(place.filename).resolve()
        is_ours = any(path.is_relative_to(folder) for folder in OURS)
        is_below_ours = is_below_ours or (is_ours and path.stem != "cli")
        if is_below_ours and not is_ours and path.suffix == ".py" and not _is_installed(path):
            own = place
    if own is None:
        return None
    said = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(":.")
    return f"{own.filename}, line {own.lineno}: {said}."


def _is_installed(path: Path) -> bool:
    return path.is_relative_to(LIBRARY) or not PACKAGES.isdisjoint(path.parts)
