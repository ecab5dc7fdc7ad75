"""Progress lines: when they come, what they say, and what breaks a long silence."""

import itertools
import math
import re
import sys
import threading
import time

import pytest
from command_helpers import on_a_terminal

from experiments.run import heartbeat, live, metrics
from experiments.run.heartbeat import Heartbeat
from experiments.run.live import Count, Rate, Schedule, clock, per_second


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


# --- durations and rates


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0:00"),
        (61, "1:01"),
        (3599.7, "1:00:00"),
        (7325, "2:02:05"),
        (86_399.4, "23:59:59"),
        (86_399.6, "1 d 0 h"),
        (300_000, "3 d 11 h"),
        (1e9, "32 years"),  # 1e12 steps, 1,000 a second
        (1e16, "317,097,920 years"),
        (math.inf, "inf years"),
    ],
)
def test_clock(seconds, text):
    assert clock(seconds) == text


@pytest.mark.parametrize(
    ("rate", "text"),
    [(12_345.6, "12,346"), (50.0, "50"), (7.25, "7.2"), (1 / 7, "0.14"), (1e-5, "1e-05")],
)
def test_a_slow_rate_is_not_rounded_to_nothing(rate, text):
    assert per_second(rate, "steps") == f"{text} steps/s"


def test_a_rate_follows_the_last_measurements_and_leaves_out_the_slowest():
    rate = Rate()
    assert rate.value == 0.0
    for _ in range(3):
        rate.add(10, 1.0)
    rate.add(10, 100.0)  # it compiled once more
    assert rate.value == pytest.approx(10.0)
    for _ in range(50):
        rate.add(20, 1.0)
    assert rate.value == pytest.approx(20.0)


def test_a_rate_of_many_short_parts_is_that_of_seconds():
    """Steps of a millisecond, one in ten of which takes 11 ms: 500 a second."""
    rate = Rate()
    for number in range(10_000):
        rate.add(1, 0.011 if number % 10 == 0 else 0.001)
    assert rate.value == pytest.approx(500, rel=0.05)


# --- when a line is due


def lines_of(seconds_a_part, total):
    """The times of the lines of a job whose parts take so many seconds."""
    clock = Clock()
    schedule = Schedule(now=clock)
    times = []
    while clock.now < total:
        clock.now += seconds_a_part
        if schedule.is_due():
            schedule.shown()
            times.append(clock.now)
    return times


@pytest.mark.parametrize("part", [0.01, 1.0, 5.0])
def test_lines_come_at_growing_intervals(part):
    times = lines_of(part, 7_200)
    gaps = [after - before for before, after in zip([0.0, *times], times, strict=False)]
    assert gaps[0] == pytest.approx(part)
    assert max(gap for gap, time in zip(gaps, times, strict=True) if time < 600) <= 30
    assert min(gaps[1:]) >= 10
    assert max(gaps) <= 60 + 2 * part
    assert min(gap for gap, time in zip(gaps, times, strict=True) if time > 1900) >= 60 - 1e-6


def test_a_slow_part_is_shown_when_it_ends():
    assert lines_of(45.0, 200) == [45.0, 90.0, 135.0, 180.0, 225.0]


# --- the line of a run


@pytest.mark.parametrize("split", ["test", "validation"])
def test_elsewhere_than_on_a_terminal_a_line_at_each_evaluation_and_when_due(capsys, split):
    now = Clock()
    progress = metrics.Progress(start=0, total=2000, steps_per_epoch=10, split=split, now=now)
    progress.trained(100, 2.0)
    progress.show(100, ("ELBO", -20.0), None, evaluated=False)
    now.now = 5.0
    progress.show(500, ("ELBO", -20.0), None, evaluated=False)
    progress.show(1000, ("ELBO", -20.125), -19.5, evaluated=True)
    progress.close()
    first = "step 100/2,000  epoch 10.0  50 steps/s  0:38 left  train ELBO -20.00 nats"
    second = f"step 1,000/2,000 epoch 100 50/s 0:20 left ELBO -20.12 {split} -19.50 nats"
    assert capsys.readouterr().err == f"{first}\n{second}\n"
    assert max(len(first), len(second)) <= live.WIDTH


@pytest.mark.parametrize("log_every", [1, 20, 1000])
def test_steps_of_seven_seconds_are_seen_from_the_second_on(capsys, log_every):
    """60 of them, the first of which compiles for 100 s; in blocks of `log_every`."""
    now = Clock()
    progress = metrics.Progress(start=0, total=60, steps_per_epoch=10, now=now)
    times = []
    for step in range(1, 61):
        now.now += 7.0 if step > 1 else 107.0
        over = step % log_every == 0 or step == 60
        progress.part(step, 1, 7.0 if step > 1 else None, ("ELBO", -20.0), over=over)
        if over:
            progress.show(step, ("ELBO", -20.0), None, evaluated=False)
        times += [now.now] * capsys.readouterr().err.count("steps/s")
    assert times[0] == 114.0
    assert max(after - before for before, after in itertools.pairwise(times)) <= 21.0


def test_nothing_is_left_open_once_a_step_is_done(capsys):
    """An evaluation after the first step: its rate is not known, and is not asked about."""
    progress = metrics.Progress(start=0, total=60, steps_per_epoch=10)
    progress.part(1, 1, None, ("ELBO", -20.0), over=True)
    progress.show(1, ("ELBO", -20.0), -21.0, evaluated=True)
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("the first step done ")
    assert second == "step 1/60  epoch 0.1  train ELBO -20.00  test ELBO -21.00 nats"


def test_what_is_counted_says_its_rate_and_time_left_and_nothing_of_what_is_quick(capsys):
    now = Clock()
    with Count("log p(x)", 1_000, "examples", now=now) as count:
        for _ in range(10):
            now.now += 4.0
            count.add(100)
    assert capsys.readouterr().err.splitlines() == [
        "log p(x): 200 of 1,000 examples  25 examples/s  0:32 left",
        "log p(x): 500 of 1,000 examples  25 examples/s  0:20 left",
        "log p(x): 800 of 1,000 examples  25 examples/s  0:08 left",
    ]
    with Count("log p(x)", 1_000, "examples", now=now) as count:
        for _ in range(10):
            now.now += 0.2
            count.add(100)
    assert capsys.readouterr().err == ""


# --- the heartbeat


LIVE = """
import time
from experiments.run import heartbeat, live
from experiments.run.metrics import Progress

with heartbeat.beating(heartbeat.Heartbeat(shortest=0.05, longest=0.05)):
    progress = Progress(start=0, total=40, steps_per_epoch=10)
    for step in range(1, 41):
        progress.part(step, 1, 0.1 if step > 1 else None, ("ELBO", -20.0), over=False)
        with heartbeat.phase("sleeping", patience=0.05):
            time.sleep(0.15)
        if step % 10 == 0:
            with live.Count("evaluating", 4, "examples", first=0.0) as count:
                for _ in range(4):
                    time.sleep(0.01)
                    count.add(1)
    progress.close()
"""


@pytest.mark.integration
def test_a_heartbeat_does_not_break_the_live_line():
    """On a pseudo-terminal: each of its lines is whole, and so is the live one."""
    text, _ = on_a_terminal([sys.executable, "-c", LIVE], columns=160)
    pieces = [piece.strip() for piece in re.split(r"[\r\n]+", text)]
    named = [piece for piece in pieces if "sleeping" in piece]
    assert len(named) >= 20
    assert set(named) == {"now sleeping"}
    steps = [piece for piece in pieces if "step " in piece and "first" not in piece]
    whole = (
        r"\d+%\|.*\| step \d+/40  epoch [\d.]+  [\d.]+ steps/s  \d:\d\d left  "
        r"train ELBO -20.00 nats"
    )
    assert steps
    assert all(re.fullmatch(whole, piece) for piece in steps), steps
    assert any(piece.startswith("evaluating: 2 of 4 examples") for piece in pieces)


def beats(heart, clock, until, *, act=lambda: None):
    """Lets time pass by seconds at most, looking as often as the heartbeat asks to."""
    while clock.now < until:
        act()
        clock.now += min(heart.beat(), 1.0, until - clock.now)


def test_a_silent_phase_is_named_every_thirty_seconds_and_later_more_seldom():
    clock = Clock()
    said = []
    heart = Heartbeat(now=clock, write=lambda text: said.append((round(clock.now), text)))
    with heart.phase("compiling the training step", patience=30.0):
        beats(heart, clock, 6 * 3600)
    assert said[0] == (30, "still compiling the training step (30 s)")
    assert said[3] == (120, "still compiling the training step (2 min)")
    times = [when for when, _ in said]
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert max(gaps[:19]) <= 31
    assert min(gaps[-10:]) >= 89
    assert said[-1][1] == "still compiling the training step (6.0 h)"


def test_a_sign_of_progress_keeps_it_silent():
    clock = Clock()
    said = []
    heart = Heartbeat(now=clock, write=said.append)
    with heart.phase("training", patience=30.0):
        beats(heart, clock, 3600, act=lambda: heart.sign() if clock.now % 20 < 1 else None)
    assert said == []


def test_short_phases_one_after_another_are_silent_together_no_longer_than_one():
    clock = Clock()
    said = []
    heart = Heartbeat(now=clock, write=lambda text: said.append((round(clock.now), text)))
    for number in range(4):
        with heart.phase(f"drawing figure {number}", patience=30.0):
            beats(heart, clock, 8 + 9 * number)
    assert said == [(30, "now drawing figure 3")]


def test_a_phase_of_less_patience_and_the_phase_around_it():
    clock = Clock()
    said = []
    heart = Heartbeat(now=clock, write=lambda text: said.append((round(clock.now), text)))
    with heart.phase("training", patience=30.0):
        with heart.phase("compiling", patience=15.0):
            beats(heart, clock, 16)
        beats(heart, clock, 46)
    with pytest.raises(KeyError), heart.phase("reading", patience=30.0):
        raise KeyError
    beats(heart, clock, 77)
    assert said == [
        (15, "still compiling (15 s)"),
        (45, "still training (45 s)"),
        (75, "still working (29 s)"),
    ]


def test_before_the_first_phase_it_starts():
    clock = Clock()
    said = []
    beats(Heartbeat(now=clock, write=said.append), clock, 31)
    assert said == ["still starting (30 s)"]


@pytest.mark.parametrize("part", [0.5, 5.0, 14.0])
def test_a_run_that_shows_its_lines_when_they_are_due_has_no_other(part):
    """Half a day of parts of a block: the heartbeat waits longer than the lines do."""
    clock = Clock()
    said = []
    heart = Heartbeat(now=clock, write=said.append)
    schedule = Schedule(now=clock)
    with heart.phase("training", patience=30.0):
        while clock.now < 43_200:
            with heart.phase("training, after step 1", patience=30.0):
                beats(heart, clock, clock.now + part)
            if schedule.is_due():
                schedule.shown()
                heart.sign()
    assert said == []


def test_it_names_what_a_slow_function_does_and_ends_with_an_exception(capfd):
    """Real time, a tenth of a second of silence for 30."""
    heart = Heartbeat(shortest=0.1, longest=0.1)

    def slow():
        with heartbeat.phase("sleeping", patience=0.1):
            time.sleep(1.0)
            raise ValueError

    with pytest.raises(ValueError), heartbeat.beating(heart):
        slow()
    assert 3 <= capfd.readouterr().err.count("now sleeping\n") <= 11
    assert "heartbeat" not in [thread.name for thread in threading.enumerate()]
    time.sleep(0.3)
    assert capfd.readouterr().err == ""


def test_without_a_heartbeat_a_phase_is_silent_and_a_line_is_a_line(capsys):
    with heartbeat.phase("sleeping"):
        heartbeat.sign()
        heartbeat.say("a line")
    assert capsys.readouterr().err == "a line\n"
    assert heartbeat.current() is None


def test_a_closed_stderr_ends_it_silently(monkeypatch):
    class Closed:
        def write(self, text):
            raise BrokenPipeError

    raised = []
    monkeypatch.setattr(threading, "excepthook", raised.append)
    monkeypatch.setattr(sys, "stderr", Closed())
    with heartbeat.beating(Heartbeat(shortest=0.05, longest=0.05)):
        time.sleep(0.3)
    assert raised == []


def test_of_several_processes_one_speaks():
    clock = Clock()
    said = []
    heart = Heartbeat(now=clock, write=said.append)
    heart.mute()
    beats(heart, clock, 300)
    heart.say("a line")
    assert said == []
