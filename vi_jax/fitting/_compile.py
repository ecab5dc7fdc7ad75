"""Compilation of the programs of a fit, side by side."""

import functools
import hashlib
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vi_jax.targets.target import Target
from vi_jax.types import Array, LogDensity, Method

# numbers in the largest array of a log density that is cheap enough for thousands of evaluations
SMALL_DENSITY = 10_000
# Loops straight to LLVM, not by way of MLIR: half the time to compile, and no slower here. Other
# releases may not know it.
_PLAIN_LOOPS = ("xla_cpu_use_fusion_emitters", False)
# not optimised: a fifth of the time to compile, a third of the speed
_UNOPTIMISED = {
    "xla_backend_optimization_level": 0,
    "xla_cpu_parallel_codegen_split_count": 1,  # one module: a fifth less in all
}
# numbers that a program goes through, from which on it pays to have it optimised: a second for a
# second
_MIN_OPTIMISED = 1.5e9
# of a density, by a program
_NUM_EVALUATIONS = {"start": 20, "ascent": 100, "init": 1_000, "batches": 300_000}
NUM_THREADS = 4  # programs that are compiled at the same time
MAX_KEPT = 64  # executables, for later fits of the same programs
_READ_IN_PART = ("gather", "dynamic_slice")  # their first operand is not gone through


class Options(NamedTuple):
    """XLA's options for the programs of a fit."""

    start: dict[str, Any]  # the choice of a start
    ascent: dict[str, Any]  # over all rows
    init: dict[str, Any]  # a method's
    steps: dict[str, Any]
    weighing: dict[str, Any]


class Program(NamedTuple):
    """A function to be compiled for its arguments (arrays, or shapes of them)."""

    options: dict[str, Any]
    function: Callable[..., Any]
    args: tuple[Any, ...]
    donate: tuple[int, ...] = ()  # arguments whose memory it may take


class Compiler:
    """Compiles programs in threads as they are added: XLA takes its time without holding Python, so
    that the next one is traced meanwhile.

    Arrays that a function closes over, the data of a log density, are arguments of its program: as
    constants in it they would be compiled too, at half a second for each 50 MB, and held once more
    by each program. So a program says nothing of their values, and one that was compiled before in
    this process is taken from there.

    Args:
      place: lays such an array where the arguments lie; called once for each, however many programs
        go through it.
    """

    def __init__(self, place: Callable[[Any], Any] = lambda array: array) -> None:
        self._place = place
        # by identity, and the array itself, so that nothing else takes that
        self._laid: dict[int, tuple[Any, Any]] = {}
        self._threads = ThreadPoolExecutor(NUM_THREADS)

    def add(self, program: Program) -> Callable[[], Callable[..., Any]]:
        """Begins to compile a program; what is returned waits for it."""
        jaxpr, shape = jax.make_jaxpr(program.function, return_shape=True)(*program.args)
        held = [self._lay(array) for array in jaxpr.consts]
        structure = jax.tree.structure(shape)

        def run(held: list[Any], *args: Any) -> Any:
            return jax.tree.unflatten(
                structure, jax.core.eval_jaxpr(jaxpr.jaxpr, held, *jax.tree.leaves(args))
            )

        donated = tuple(number + 1 for number in program.donate)
        lowered = jax.jit(run, donate_argnums=donated).lower(held, *program.args)
        text = _Text(lowered)
        options = tuple(sorted(program.options.items()))
        ready = self._threads.submit(_executable, text, options)
        return lambda: functools.partial(ready.result(), held)

    def _lay(self, array: Any) -> Any:
        if id(array) not in self._laid:
            self._laid[id(array)] = array, self._place(array)
        return self._laid[id(array)][1]


class _Text:
    """A lowered program, equal to another of the same text, devices and arguments."""

    def __init__(self, lowered: Any) -> None:
        self.lowered = lowered
        text = lowered.as_text()
        # a call of Python is written by its address, which another may have later
        own = id(self) if "callback" in text else 0
        tree = str(lowered.in_tree) + str(lowered.out_tree)
        self.name = hashlib.sha256(f"{own} {tree} {text}".encode()).hexdigest()

    def __hash__(self) -> int:
        return hash(self.name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Text) and self.name == other.name


@functools.lru_cache(maxsize=MAX_KEPT)
def _executable(text: _Text, options: tuple[tuple[str, Any], ...]) -> Callable[..., Any]:
    """The executable of a program; the last MAX_KEPT are kept, without data of theirs."""
    executable: Callable[..., Any] = text.lowered.compile(compiler_options=dict(options))
    text.lowered = None  # not kept with its name
    return executable


def compiled(
    *programs: Program, place: Callable[[Any], Any] = lambda array: array
) -> list[Callable[..., Any]]:
    """Programs compiled side by side; see `Compiler`."""
    compiler = Compiler(place)
    ready = [compiler.add(program) for program in programs]
    return [wait() for wait in ready]


def compiler_options(target: Target, method: Method, *, num_starts: int, num_draws: int) -> Options:
    """A program that goes through few numbers runs for less time than XLA takes to optimise it on a
    CPU: it is not optimised then.
    """
    if jax.default_backend() != "cpu":
        return Options(*[{}] * len(Options._fields))
    options = _options
    whole = largest_array(target.log_density, target.size)
    part = whole
    sampled = target.sampled
    steps = method.usual_evaluations
    if sampled is not None and method.stochastic:
        part = largest_array(lambda u: sampled(jax.random.key(0))(u), target.size)
        steps = _NUM_EVALUATIONS["batches"]
    init = options(steps, part)
    if part < whole:
        init = options(_NUM_EVALUATIONS["init"], part)
    weighings = num_draws if num_starts == 1 else 2 * num_draws
    return Options(
        start=options(_NUM_EVALUATIONS["start"] * num_starts, whole),
        ascent=options(_NUM_EVALUATIONS["ascent"], whole),
        init=init,
        steps=options(steps, part),
        weighing=options(weighings, whole),
    )


def values_options(target: Target, *, num_values: int) -> dict[str, Any]:
    """Of a program that takes so many values of a log density."""
    if jax.default_backend() != "cpu":
        return {}
    return _options(num_values, largest_array(target.log_density, target.size))


def _options(looks: int, numbers: int) -> dict[str, Any]:
    """Of a program that looks so often at so many numbers: optimised where it goes through many."""
    plain = quick_loops()
    if looks * numbers > _MIN_OPTIMISED:
        return plain
    return plain | {name: value for name, value in _UNOPTIMISED.items() if _is_known(name, value)}


def quick_loops() -> dict[str, Any]:
    """The option by which XLA compiles loops quickly, where it has it."""
    is_there = jax.default_backend() == "cpu" and _is_known(*_PLAIN_LOOPS)
    return dict([_PLAIN_LOOPS]) if is_there else {}


@functools.cache
def _is_known(name: str, value: Any) -> bool:
    """Whether this XLA has the option; it refuses what it does not know."""
    try:
        jax.jit(lambda x: x).lower(jnp.float32(0)).compile(compiler_options={name: value})
    except jax.errors.JaxRuntimeError:
        return False
    return True


def largest_array(log_density: LogDensity, size: int) -> int:
    """Numbers in the largest array that a log density of u [D] goes through."""
    return _largest(
        jax.make_jaxpr(log_density)(jax.ShapeDtypeStruct((size,), jnp.result_type(float))).jaxpr
    )


def _largest(jaxpr: Any) -> int:
    """Numbers in the largest array of a program, the programs that it calls included."""
    sizes = [
        math.prod(getattr(var.aval, "shape", ()))
        for eqn in jaxpr.eqns
        for var in [*_read(eqn), *eqn.outvars]
    ]
    params = [
        value
        for eqn in jaxpr.eqns
        for param in eqn.params.values()
        for value in (param if isinstance(param, tuple) else [param])
    ]
    called = [getattr(value, "jaxpr", value) for value in params]  # a closed one holds another
    return max([0, *sizes, *(_largest(inner) for inner in called if hasattr(inner, "eqns"))])


def _read(eqn: Any) -> list[Any]:
    return eqn.invars[1:] if eqn.primitive.name in _READ_IN_PART else eqn.invars


def traced_once(target: Target) -> Target:
    """The target with a density that JAX traces once: Python runs through a model of 200 sites in
    as many milliseconds, and a fit needs its program some ten times (value and gradient, at the
    start, in the loop, at the end).
    """

    @functools.cache
    def trace(dtype: Any) -> tuple[Callable[..., Array], list[Any]]:
        jaxpr = jax.make_jaxpr(target.log_density)(jax.ShapeDtypeStruct((target.size,), dtype))
        return jax.jit(lambda held, u: jax.core.eval_jaxpr(jaxpr.jaxpr, held, u)[0]), jaxpr.consts

    def log_density(u: Array) -> Array:
        density, held = trace(jnp.result_type(u))
        return density(held, u)  # `compiled` makes arguments of these

    return target._replace(log_density=log_density)
