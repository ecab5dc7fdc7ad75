"""The front of every command: flags, one-sentence errors, and JAX's set-up. Nothing slow is
imported here.
"""

import contextlib
import difflib
import errno
import hashlib
import os
import platform
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from absl import flags

from experiments import heartbeat

STARTED = time.perf_counter()
REQUEUE = 75  # EX_TEMPFAIL of sysexits.h: nothing is wrong, try again
PATIENCE = 10  # seconds that a command which failed has to end in
# What a machine can do to a run that has begun: no room, no rights, a disk that fails or goes away.
_OF_THE_MACHINE = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.ENOENT,
    errno.ESTALE,
    errno.EMFILE,
)


class UserError(Exception):
    """What went wrong, in one sentence with the remedy; printed as it stands, exit code 2."""


class Requeue(BaseException):
    """A run was asked to stop and has saved what it had: the same command goes on from there, exit
    code 75 (EX_TEMPFAIL).
    """


def define_common_flags() -> None:
    """The flags that every command has."""
    flags.DEFINE_string(
        "compilation_cache",
        "auto",
        "Where compiled programs are kept between runs: a folder, `auto` (a folder of this kind "
        "of host under the user's "
        "cache) or `off`.",
    )


def run(main: Callable[[], int | None], module_doc: str) -> NoReturn:
    """Parses sys.argv and runs main; every anticipated failure is one sentence on stderr and a
    non-zero exit code.
    """
    if any(
        argument in ("--help", "-h", "-help", "--helpfull", "--helpshort")
        for argument in sys.argv[1:]
    ):
        print(_help(module_doc))
        sys.exit(0)
    code = 1  # of what was not foreseen
    try:
        _parse(sys.argv)
        with heartbeat.beating():
            code = main() or 0
    except UserError as error:
        print(f"error: {' '.join(str(error).splitlines())}", file=sys.stderr)
        code = 2
    except OSError as error:
        if error.errno not in _OF_THE_MACHINE:
            raise
        print(f"error: {_of_the_machine(error)}", file=sys.stderr)
        code = 2
    except Requeue as stopped:
        print(stopped, file=sys.stderr)
        code = REQUEUE
    except KeyboardInterrupt:
        print(
            "\ninterrupted; run the same command again to go on from the last checkpoint.",
            file=sys.stderr,
        )
        code = 130
    finally:
        _end_soon(main, code)
    sys.exit(code)


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
    """Turns the persistent compilation cache on; call it before anything is compiled."""
    import jax

    choice = flags.FLAGS.compilation_cache
    if choice == "off":
        return
    folder = _cache_folder() if choice == "auto" else Path(choice).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        print(
            f"note: no compilation cache at {folder} ({error.strerror}); --compilation_cache "
            "names another.",
            file=sys.stderr,
        )
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


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
        signal.alarm(2 * PATIENCE)
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


def _parse(argv: list[str]) -> None:
    try:
        from experiments import config_file, overrides

        words, given = overrides.split(config_file.located(argv))
        sys.argv = words  # where config_flags looks for overrides of its own
        rest = flags.FLAGS(words)[1:]
        if "config" in flags.FLAGS and flags.FLAGS.config is not None:
            # a config file that could not be loaded says so only when it is used
            flags.FLAGS.config.to_dict()
            flags.FLAGS["config"].value = config_file.set_fields(flags.FLAGS.config, given)
    except flags.Error as error:
        raise UserError(_sentence(str(error))) from None
    except (KeyError, AttributeError) as error:  # an override of a field that the config has not
        raise UserError(_unknown_field(str(error.args[0]))) from None
    except (ImportError, OSError, SyntaxError, TypeError, ValueError) as error:
        raise UserError(_sentence(str(error))) from None
    if rest:
        raise UserError(f"unexpected argument {rest[0]!r}; options begin with --, see --help.")


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


def _sentence(text: str) -> str:
    """The telling part of a flag parser's message, in one line."""
    if "No such file or directory" in text and "config" in text:
        path = re.findall(r"No such file or directory: '([^']*)'", text)
        known = ", ".join(
            sorted(str(p) for p in Path("configs").rglob("*.py") if p.name != "__init__.py")
        )
        return (
            f"there is no config file {path[-1] if path else '?'}; there are "
            f"{known or 'none here: run from the checkout'}."
        )
    if "Error whilst parsing config file" in text:
        return re.sub(r"^[\w.]*(Error|Exception): ", "", text.strip().splitlines()[-1])
    text = re.sub(
        r"^flag (--\S+): invalid literal for (\w+)\(\).*",
        r"\1 is not of the field's type, \2",
        text.strip(),
    )
    text = " ".join(text.replace("\\'", "'").split())
    return text[1:-1] if text[:1] == text[-1:] == "'" else text


def _unknown_field(text: str) -> str:
    """`'x'\\nDid you mean "y" ...`, however often quoted on its way, as one sentence."""
    field = re.search(r"\w+", text)
    hint = re.search(r'Did you mean "(\w+)"', text)
    return f"the config has no field {field[0] if field else text!r}" + (
        f"; did you mean {hint[1]!r}?" if hint else "."
    )


def _help(module_doc: str) -> str:
    lines = [module_doc.strip(), "", "flags:"]
    wanted = [*flags.FLAGS.get_flags_for_module(sys.argv[0]), flags.FLAGS["compilation_cache"]]
    seen = set()
    for flag in wanted:
        if flag.name not in seen:
            seen.add(flag.name)
            default = "" if flag.default in (None, "", False) else f" (default {flag.default})"
            lines.append(f"  --{flag.name}: {flag.help}{default}")
    return "\n".join(lines)
