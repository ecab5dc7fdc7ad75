"""Process start-up of a command: its streams, its environment variables, JAX and its devices.

Whatever a shell, a scheduler or a container hands to a command is made to work here, or refused
in a sentence. Nothing slow is imported before it is needed.
"""

import codecs
import errno
import io
import os
import re
import subprocess
import sys
import warnings
from importlib.util import find_spec
from typing import Any

from experiments.errors import UserError

# What our tables print beside ASCII, for streams that cannot encode it.
_ASCII = {"±": "+-", "−": "-", "×": "x", "–": "-", "…": "...", "’": "'"}
# On a CPU XLA's third level, its default, takes up to five times as long to compile as the second,
# and what it compiles runs no sooner (docs/speed.md).
LEVEL = "xla_backend_optimization_level"
SECOND_LEVEL = f"--{LEVEL}=2"
_PROBE = "import jax; jax.jit(lambda x: x + 1.0)(1.0)"
_PROBE_SECONDS = 60


class Streams:
    """Standard output and error that cannot end a run: see `open_streams`."""

    def __init__(self) -> None:
        self.lost: OSError | None = None  # why standard output could not take a result


class _LastingFile(io.FileIO):
    """A file descriptor that is pointed at the null device once it cannot be written."""

    def __init__(self, descriptor: int, streams: Streams) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self._streams = streams

    def write(self, content: Any) -> int:
        """Writes, or drops what nobody can read any more: the work goes on."""
        try:
            return super().write(content) or 0
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EINTR):
                raise
            reader_left = error.errno == errno.EPIPE
            if self.fileno() == 1 and not reader_left:
                self._streams.lost = error
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())
            os.close(null)
            return len(content)


def open_streams() -> Streams:
    """Makes standard output and error fit for a long run.

    - Descriptors 0 to 2 that are closed are opened on the null device: the next file that is
      opened would take their number, and what C++ logs would be written into it.
    - A reader that has left (`| head -1`), a terminal that is gone: the output is dropped and the
      command goes on to write its files. A disk that is full is remembered in `Streams.lost`.
    - Characters that the encoding lacks are spelled in ASCII.

    Streams that a caller has put in place of the process's own are left alone.
    """
    streams = Streams()
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    codecs.register_error("vi_jax.ascii", spell_in_ascii)
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        found = getattr(sys, name)
        if found is not getattr(sys, f"__{name}__"):
            continue
        if found is not None:
            found.flush()
        stream = io.TextIOWrapper(
            io.BufferedWriter(_LastingFile(descriptor, streams)),
            encoding=getattr(found, "encoding", None) or "utf-8",
            errors="vi_jax.ascii",
            line_buffering=getattr(found, "line_buffering", False) or name == "stderr",
            write_through=getattr(found, "write_through", False),
        )
        setattr(sys, name, stream)
    return streams


def spell_in_ascii(error: UnicodeError) -> tuple[str, int]:
    """A codec's error handler: `±` as `+-`, what else cannot be encoded as an escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    spelled = [_ASCII.get(c) or c.encode("ascii", "backslashreplace").decode() for c in text]
    return "".join(spelled), error.end


def check_process(argv: list[str]) -> None:
    """Raises UserError where the working folder is gone, or an argument cannot be read as text."""
    try:
        here = os.getcwd()
    except OSError as error:
        raise UserError(
            f"the working folder cannot be used ({error.strerror}); it may have been deleted: "
            "change to one that exists."
        ) from None
    for text in [*argv, here]:
        if not is_text(text):
            shown = text.encode("utf-8", "backslashreplace").decode()
            encoding = sys.getfilesystemencoding()
            raise UserError(
                f"{shown!r} is not text in this locale's encoding, {encoding}; set PYTHONUTF8=1 "
                "or LC_ALL=C.UTF-8, or use other names."
            )


def is_text(text: str) -> bool:
    """Whether no byte of it was beyond the encoding (PEP 383 keeps those as surrogates)."""
    return not any("\ud800" <= c <= "\udfff" for c in text)


def keep_warnings() -> None:
    """Lets the packages below us warn where PYTHONWARNINGS turns warnings into errors.

    `error` finds what is deprecated in one's own code; other packages warn while they are
    imported, and no command would start.
    """
    if any(option.split(":")[0] == "error" for option in sys.warnoptions):
        warnings.filterwarnings("default", module=r"(?!(vi_jax|experiments|configs)(\.|$))")


def integer(name: str, default: int) -> int:
    """A whole number from an environment variable.

    Raises:
      UserError: it holds something else.
    """
    text = os.environ.get(name) or str(default)
    try:
        return int(text)
    except ValueError:
        raise UserError(
            f"the environment variable {name} is {text!r}; it has to be a whole number, or unset."
        ) from None


def import_jax() -> Any:
    """Imports JAX and returns it.

    Raises:
      UserError: JAX cannot read one of its environment variables, or XLA one of its flags.
    """
    probe = _start_probe()
    try:
        import jax
    except ValueError as error:
        names = ", ".join(sorted(name for name in os.environ if name.startswith("JAX_")))
        raise UserError(f"JAX cannot read its settings ({error}); look at {names}.") from None
    if probe is not None:
        _check_probe(probe)
    compile_sooner()
    return jax


def compile_sooner() -> None:
    """Has XLA optimise programs for a CPU less, where XLA_FLAGS does not say how much; XLA reads
    them when the first device is looked for.
    """
    own = os.environ.get("XLA_FLAGS", "")
    if LEVEL not in own and _is_on_cpu():
        os.environ["XLA_FLAGS"] = f"{own} {SECOND_LEVEL}".strip()


def _is_on_cpu() -> bool:
    """Whether JAX will find no accelerator: its plugins are not installed, or not asked for."""
    asked = os.environ.get("JAX_PLATFORMS", "")
    if asked:
        return asked == "cpu"
    from importlib import metadata  # with the parser of e-mails

    has_plugins = bool(metadata.entry_points(group="jax_plugins"))
    return not has_plugins and not any(map(find_spec, ("jax_plugins", "libtpu")))


def find_devices(jax: Any) -> list[Any]:
    """The devices that JAX finds.

    Raises:
      UserError: it finds none; says which platforms were asked for, and why they failed.
    """
    try:
        return jax.devices()
    except (AssertionError, RuntimeError) as error:  # jax asserts that some platform is there
        asked = os.environ.get("JAX_PLATFORMS", "")
        reason = " ".join(str(error).split()) or "no such device or plugin is installed"
        asked_for = f"JAX_PLATFORMS={asked}" if asked else "the platforms that are installed"
        raise UserError(
            f"JAX finds no device with {asked_for}: {reason[:400].rstrip('.')}; unset "
            "JAX_PLATFORMS, or set JAX_PLATFORMS=cpu."
        ) from None


def _start_probe() -> subprocess.Popen[str] | None:
    """A process that compiles with the same XLA_FLAGS, None where there are none of the user's.

    XLA ends the process that hands it a flag that it does not know, without an exception.
    """
    if os.environ.get("XLA_FLAGS", "").strip() in ("", SECOND_LEVEL):
        return None
    variables = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    return subprocess.Popen(
        [sys.executable, "-c", _PROBE],
        env={**variables, "JAX_PLATFORMS": "cpu"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )


def _check_probe(probe: subprocess.Popen[str]) -> None:
    try:
        _, said = probe.communicate(timeout=_PROBE_SECONDS)
    except subprocess.TimeoutExpired:  # says nothing of the flags
        probe.kill()
        probe.communicate()
        return
    if probe.returncode == 0:
        return
    lines = [re.sub(r"^[EFIW]\d.*?\] ", "", line) for line in said.splitlines() if line.strip()]
    if lines and lines[0].startswith("Traceback"):
        lines = lines[-1:]
    reason = lines[0] if lines else f"it ended with code {probe.returncode}"
    raise UserError(
        f"XLA does not take XLA_FLAGS={os.environ['XLA_FLAGS']!r}: {reason[:300].rstrip('.')}; "
        "correct the flags, or unset XLA_FLAGS."
    )
