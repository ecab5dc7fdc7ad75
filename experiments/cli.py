"""The front of every command: flags, one-sentence errors, and JAX's set-up. Nothing slow is
imported here.
"""

import contextlib
import difflib
import hashlib
import os
import platform
import re
import signal
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from absl import flags

from experiments import command_line, startup, terminal
from experiments.errors import Requeue, UserError, in_own_code
from experiments.run import heartbeat

STARTED = time.perf_counter()
MAX_COUNT = 2**31 - 1  # of what programs count in int32
MAX_SEED = 2**32 - 1
REQUEUE = 75  # EX_TEMPFAIL of sysexits.h: nothing is wrong, try again
FIRST_FLAGS = ("config", "workdir")  # in what --help prints
PATIENCE = 10  # seconds that a command which failed has to end in


def define_common_flags() -> None:
    """The flags that every command has."""
    flags.DEFINE_string(
        "compilation_cache",
        "auto",
        "Where compiled programs are kept between runs: a folder, `auto` (a folder of this kind "
        "of host under the user's "
        "cache) or `off`.",
    )


def run(
    main: Callable[[], int | None],
    module_doc: str | None,
    define_flags: Callable[[], None] = lambda: None,
    configs: tuple[str, ...] = (),
) -> NoReturn:
    """Defines the flags, parses sys.argv and runs main; every anticipated failure is one sentence
    on stderr and a non-zero exit code. `configs` are the folders of configs/ that --help lists.
    """
    streams = startup.open_streams()
    code = 1  # of what was not foreseen
    try:
        code = _guarded(main, module_doc or "", define_flags, configs)
        sys.stdout.flush()
    except Requeue as stopped:
        terminal.say(str(stopped))
        code = REQUEUE
    except KeyboardInterrupt:
        terminal.say(
            "\ninterrupted; run the same command again to go on from the last checkpoint.",
        )
        code = 130
    except Exception as error:
        sentence = _in_a_sentence(error)
        if sentence is None:  # a fault of ours, whose traceback is wanted
            raise
        _say(f"error: {sentence}")
        code = 2
    finally:
        _end_soon(main, code)
    if streams.lost is not None:
        _say(
            f"error: what the command prints could not be written ({streams.lost.strerror}); "
            "the files of its run folder have the same numbers."
        )
        code = code or 2
    sys.exit(code)


def _in_a_sentence(error: Exception) -> str | None:
    """What to say of an error that is the user's, the machine's or the surroundings'; else None."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, Warning):
        return (
            f"a warning ended the command ({type(error).__name__}: {error}), as PYTHONWARNINGS or "
            "python -W asks for; leave out `error` there."
        )
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        reason = (str(error).strip().splitlines() or ["an allocation failed"])[0]
        return (
            f"the memory does not suffice ({reason[:200]}); take smaller batches, fewer draws or "
            "a smaller model."
        )
    if isinstance(error, OSError) and error.errno is not None:  # of a system call
        return _of_the_machine(error)
    return in_own_code(error)


def _guarded(
    main: Callable[[], int | None],
    module_doc: str,
    define_flags: Callable[[], None],
    configs: tuple[str, ...],
) -> int:
    startup.check_process(sys.argv)
    os.environ["MPLBACKEND"] = "agg"  # figures are files; another name could end the import
    if {"--help", "-h", "-help", "--helpfull", "--helpshort"} & set(sys.argv[1:]):
        define_flags()
        print(_help(module_doc, configs))
        return 0
    command_line.parse(sys.argv, define_flags)
    with heartbeat.beating():
        return main() or 0


def _say(text: str) -> None:
    """One line on stderr, whatever the text holds."""
    terminal.say(" ".join(text.splitlines()))


def require(name: str) -> str:
    """The value of a string flag that has to be given."""
    value = getattr(flags.FLAGS, name)
    if not value:
        raise UserError(f"--{name} is missing; see --help for examples.")
    return value


def suggest(name: str, names: list[str] | tuple[str, ...]) -> str:
    """`(did you mean x?)` with a leading blank, or nothing."""
    close = difflib.get_close_matches(name, names, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def set_up_jax() -> None:
    """Imports JAX and turns the persistent compilation cache on; call it before anything is
    compiled.

    Raises:
      UserError: JAX or XLA cannot read their environment variables.
    """
    jax = startup.import_jax()
    choice = flags.FLAGS.compilation_cache
    if choice == "off":
        return
    folder = Path("~/.cache") if choice == "auto" else Path(choice)
    try:
        folder = _cache_folder() if choice == "auto" else folder.expanduser()
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: a user without a home
        reason = error.strerror if isinstance(error, OSError) else str(error).rstrip(".")
        terminal.say(
            f"note: no compilation cache at {folder} ({reason}); --compilation_cache names "
            "another.",
        )
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def find_devices() -> None:
    """Raises UserError where JAX finds no device; after this all of its functions can be used."""
    import jax

    startup.find_devices(jax)


def _end_soon(main: Callable[[], int | None], code: int) -> None:
    """Sees to it that a command that failed ends within PATIENCE, and with it its lock.

    An exit waits for threads, and those of a library whose write has failed may wait for ever. The
    last resort, where not even a thread runs any more, is the kernel's alarm. Nothing where `main`
    is called by another program than its own command.
    """
    if code in (0, REQUEUE) or main.__module__ != "__main__":
        return
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(6 * PATIENCE)  # an exit may take long beside other work
    timer = threading.Timer(PATIENCE, _end_now, [code])
    timer.daemon = True
    timer.start()


def _end_now(code: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _cache_folder() -> Path:
    """One folder for each kind of host: programs compiled for another processor are rejected, or
    crash.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    try:
        cpu = re.sub(
            r"(?m)^(?!flags|model name|Features|CPU part).*$",
            "",
            Path("/proc/cpuinfo").read_text().split("\n\n")[0],
        )
    except OSError:
        cpu = platform.processor()
    host = hashlib.sha256(f"{platform.machine()} {cpu}".encode()).hexdigest()[:12]
    return base / "vi_jax" / "compiled" / f"{platform.machine()}-{host}"


def _of_the_machine(error: OSError) -> str:
    where = (
        f"{error.filename} cannot be read or written"
        if error.filename
        else "a file cannot be read or written"
    )
    return (
        f"{where}: {error.strerror}. What had been saved before is kept; the same command "
        "goes on from there."
    )


def _help(module_doc: str, configs: tuple[str, ...]) -> str:
    from experiments import listing

    lines = [listing.fitted(module_doc), ""]
    if found := listing.configs(configs):
        lines += ["configs:", *found, ""]
    lines.append("flags:")
    by_module = flags.FLAGS.flags_by_module_dict()
    ours = [
        flag
        for module, found in by_module.items()
        if module == sys.argv[0] or module.startswith("experiments.")  # not those of absl
        for flag in found
    ]
    for flag in sorted(ours, key=lambda flag: flag.name not in FIRST_FLAGS):
        default = "" if flag.default in (None, "", False, []) else f" (default {flag.default})"
        described = f"  --{flag.name}: {flag.help}{default}"
        lines += textwrap.wrap(described, listing.WIDTH, subsequent_indent="      ")
    return "\n".join(lines)
