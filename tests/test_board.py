"""The record of a run: TensorBoard's events as they are read back, and a disk that refuses a
row.
"""

import struct

import pytest
from tensorboardX.proto.event_pb2 import Event

from experiments.cli import UserError
from experiments.run import metrics
from experiments.run.board import Board


def events(path):
    """The events of a file, by the format: length, its checksum, the record, its checksum."""
    content = path.read_bytes()
    found = []
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        found.append(Event.FromString(content[12 : 12 + length]))
        content = content[16 + length :]
    return found


def scalars(folder):
    """(step, name) -> value, of all files of a folder."""
    return {
        (event.step, value.tag): value.simple_value
        for path in folder.iterdir()
        for event in events(path)
        for value in event.summary.value
    }


def test_what_is_written_is_read_back(tmp_path):
    board = Board(tmp_path / "tensorboard", from_step=0)
    assert not (tmp_path / "tensorboard").exists()
    for step in (1, 2):
        board.write(step, {"train/elbo": -1.5 * step, "seconds": 0.25})
    board.close()
    board.close()
    assert scalars(tmp_path / "tensorboard") == {
        (1, "train/elbo"): -1.5,
        (2, "train/elbo"): -3.0,
        (1, "seconds"): 0.25,
        (2, "seconds"): 0.25,
    }


def test_a_run_that_goes_on_has_a_file_of_its_own_and_hides_what_came_later(tmp_path, monkeypatch):
    """In the same second, as if the clock stood still."""
    monkeypatch.setattr("time.time", lambda: 1e9)
    for start in (0, 10):
        board = Board(tmp_path, from_step=start)
        board.write(start + 1, {"x": 1.0})
        board.close()
    first, second = sorted(
        tmp_path.iterdir(),
        key=lambda path: "10." in path.name.split("tfevents.")[1].split(".", 1)[1],
    )
    assert [event.session_log.status for event in events(first)] == [0, 0]
    starts = [event for event in events(second) if event.session_log.status]
    assert [event.step for event in starts] == [11]


@pytest.mark.parametrize("which", ["row", "event"])
def test_a_full_disk_is_a_sentence(tmp_path, which, capsys):
    """/dev/full takes nothing."""
    log = metrics.MetricsLog(tmp_path, from_step=0)
    log.write({"step": 1, "x": 1.0})
    with open("/dev/full", "ab" if which == "event" else "a") as full:
        if which == "row":
            log._files[0] = full
            with pytest.raises(
                UserError,
                match=r"the metrics of step 2 cannot be written to .* \(No space left on device\)",
            ):
                log.write({"step": 2, "x": 1.0})
        else:
            log._board._file = full
            log.write({"step": 2, "x": 1.0})
        log.close()
    said = capsys.readouterr().err
    assert said == (
        f"warning: {tmp_path} could not take the last of its metrics (No space left on device).\n"
        if which == "event"
        else ""
    )
    assert metrics.read_rows(tmp_path / metrics.METRICS)[0] == {"step": 1, "x": 1.0}
