"""No program waits for ever where XLA's thread pool has two threads (vi_jax/linalg.py)."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jaxlib
import pytest
import watchdog

from vi_jax import linalg

PROGRAM = Path(__file__).with_name("hang_program.py")
# NPROC sets the threads of XLA's pool. Outside of `vi.fit`, LAPACK's own threads are the caller's.
TWO_THREADS = {"NPROC": "2", "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "OPENBLAS_NUM_THREADS": "1"}
FITS = 40  # of the stress test

cut = pytest.mark.skipif(
    not linalg.is_cut(tuple(jaxlib.version.__version_info__)),
    reason="this jaxlib makes one LAPACK call for a batch",
)


@pytest.fixture
def run(tmp_path):
    """Runs a program of hang_program.py under the watchdog."""
    numbers = iter(range(1_000))

    def run(*args, still=watchdog.STILL_SECONDS, limit=500.0, **env):
        return watchdog.watch(
            watchdog.python(str(PROGRAM), *map(str, args)),
            log=tmp_path / f"{next(numbers)}.log",
            env={**TWO_THREADS, **env},
            still=still,
            limit=limit,
        )

    return run


def assert_ended(done):
    assert done.outcome == "ended", str(done)
    assert done.returncode == 0, str(done)
    assert "DONE" in done.output


@pytest.mark.integration
def test_a_sleeping_program_waits_and_a_busy_one_computes(tmp_path):
    asleep = watchdog.watch(
        watchdog.python("-c", "import time; time.sleep(60)"), log=tmp_path / "asleep", still=2.0
    )
    assert asleep.outcome == "waits"
    assert "line 1 in <module>" in asleep.output  # its stack
    busy = watchdog.watch(
        watchdog.python("-c", "while True: pass"), log=tmp_path / "busy", still=2.0, limit=4.0
    )
    assert busy.outcome == "computes"
    quick = watchdog.watch(watchdog.python("-c", "print('hello')"), log=tmp_path / "quick")
    assert quick.outcome == "ended"
    assert quick.output == "hello\n"


@pytest.mark.integration
@pytest.mark.parametrize("workers", ["-n0", "-n1"])
def test_a_test_that_hangs_fails_with_its_stack(tmp_path, workers):
    (tmp_path / "pytest.ini").write_text("[pytest]\nseconds_per_test = 3\n")
    (tmp_path / "conftest.py").write_text("from time_limit import *\n")
    (tmp_path / "test_it.py").write_text(
        "import time\ndef test_that_passes(): pass\ndef test_that_hangs(): time.sleep(100)\n"
    )
    done = watchdog.watch(
        watchdog.python("-m", "pytest", "-p", "no:cacheprovider", workers, str(tmp_path)),
        log=tmp_path / "log",
        env={"PYTHONPATH": str(PROGRAM.parent)},
        limit=100.0,
    )
    assert done.outcome == "ended", str(done)
    assert done.returncode == 1
    assert "Timeout (0:00:03)!" in done.output
    assert "in test_that_hangs" in done.output
    if workers == "-n1":
        assert "crashed while running 'test_it.py::test_that_hangs'" in done.output
        assert "1 failed, 1 passed" in done.output


@cut
@pytest.mark.slow
def test_the_smallest_program_waits_without_us(run):
    """Five runs: a control of the tests below, which this jaxlib fails by chance, not surely."""
    outcomes = [run("plain", 3_000, still=15.0).outcome for _ in range(5)]
    assert "waits" in outcomes


@cut
@pytest.mark.slow
def test_a_pool_of_one_thread_protects_any_program(run):
    for _ in range(3):
        assert_ended(run("plain", 3_000, NPROC="1"))


@pytest.mark.integration
@pytest.mark.parametrize("name", ["guarded", "ascents", "processes"])
def test_programs_that_waited_end(run, name):
    assert_ended(run(name))


@pytest.mark.integration
def test_two_fits_at_once_end(run):
    with ThreadPoolExecutor(2) as pool:
        for done in pool.map(lambda seed: run("horseshoe", 20, seed), (0, 1)):
            assert_ended(done)


@pytest.mark.slow
def test_programs_that_waited_end_each_time(run):
    for name in ("guarded", "ascents", "processes"):
        for _ in range(5):
            assert_ended(run(name))
    with ThreadPoolExecutor(2) as pool:
        for done in pool.map(lambda name: run(name), 5 * ("guarded", "ascents")):
            assert_ended(done)


@pytest.mark.slow
def test_forty_fits_end_alone_and_two_at_a_time(run):
    """Twenty fits one after another, twenty two at a time: half of 302 latents, half of 62."""
    seeds = range(FITS // 8)
    sizes = (150, 150, 30, 30)
    alone = [run("horseshoe", size, *seeds, limit=3_000) for size in sizes]
    with ThreadPoolExecutor(2) as pool:
        at_once = list(pool.map(lambda size: run("horseshoe", size, *seeds, limit=3_000), sizes))
    for done in alone + at_once:
        assert_ended(done)
    fits = {"alone": seconds_of(alone[:2]), "two at a time": seconds_of(at_once[:2])}
    assert sum(done.output.count("FIT") for done in alone + at_once) == FITS
    for name, seconds in fits.items():
        print(f"\n302 latents {name}: {sum(seconds) / len(seconds):.1f} s a fit")
    # They do not spin, waiting for each other: the time of a processor does not grow.
    cpu_alone = sum(done.cpu_seconds for done in alone)
    cpu_at_once = sum(done.cpu_seconds for done in at_once)
    print(f"processor: {cpu_alone / 20:.1f} s a fit alone, {cpu_at_once / 20:.1f} s two at a time")
    assert cpu_at_once < 1.5 * cpu_alone


def seconds_of(runs):
    return [float(found) for done in runs for found in re.findall(r"FIT ([\d.]+) s", done.output)]
