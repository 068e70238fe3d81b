"""What is in force when files change, cannot be read for a while, or look as before."""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from spritemesh import renewed
from spritemesh.errors import OpsError
from spritemesh.renewed import Renewed, Secret
from tests.harness.descriptors import descriptors_left
from tests.harness.waiting import wait_for

_log = logging.getLogger("test.renewed")


class File:
    """A file that is read again. readings: how many there were. defect: raised by the next ones."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.readings = 0
        self.defect: Exception | None = None
        path.write_text("old")
        path.chmod(0o600)
        self.renewed = Renewed(
            self._read,
            (str(path),),
            Secret(str(path), f"--flag {path}"),
            log=_log,
            kept="the words before",
            told=lambda before, now: None if before == now else f"{now} now",
        )

    def _read(self) -> str:
        self.readings += 1
        if self.defect is not None:
            raise self.defect
        try:
            return self.path.read_text()
        except OSError as error:
            raise OpsError("signing_key_invalid", f"cannot be read: {error.strerror}") from error

    def settle(self) -> None:
        """Until looks at it bring no reading."""

        def is_settled() -> bool:
            before = self.readings
            self.renewed.current()
            return self.readings == before

        wait_for(is_settled)


@pytest.fixture
def file(tmp_path: Path) -> File:
    found = File(tmp_path / "words")
    found.settle()
    return found


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renewed, "RETRY_SECONDS", 0.05)


def _rewrite(path: Path) -> None:
    times = path.stat()
    path.write_text("new")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize(
    "change",
    [
        _rewrite,
        lambda path: path.chmod(0o640),
        pytest.param(
            lambda path: os.chown(path, 65534, -1),
            marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away"),
        ),
    ],
    ids=["rewritten with its size and times", "mode", "owner"],
)
def test_change_that_leaves_size_and_times_is_seen(file: File, change: Callable[[Path], None]) -> None:
    change(file.path)
    before = file.readings
    assert file.renewed.current() == file.path.read_text()
    assert file.readings == before + 1


@pytest.mark.usefixtures("often")
def test_change_that_came_while_no_file_could_be_opened_is_read_later(
    file: File, caplog: pytest.LogCaptureFixture
) -> None:
    file.path.write_text("new")
    with descriptors_left(0):
        # Longer than a change is taken for fresh: only the failure can bring another reading.
        ends = time.monotonic() + 0.1
        while time.monotonic() < ends:
            assert file.renewed.current() == "old"
    wait_for(lambda: file.renewed.current() == "new")
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert caplog.messages == [
        "signing_key_invalid: cannot be read: Too many open files; the words before stay in force"
    ]


def test_file_that_cannot_be_used_is_read_once_a_second(
    file: File, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 1000.0
    clock = SimpleNamespace(time_ns=time.time_ns, monotonic=lambda: now)
    monkeypatch.setattr("spritemesh.renewed.time", clock)
    file.defect = OpsError("signing_key_invalid", "holds no key")
    file.path.chmod(0o400)
    file.renewed.current()
    file.settle()
    before = file.readings
    for expected in (before + 1, before + 2):
        now += 1
        for _ in range(10):
            file.renewed.current()
        assert file.readings == expected
    assert len(caplog.messages) == 1
    file.defect = None
    for _ in range(2):
        now += 1
        for _ in range(10):
            file.renewed.current()
    assert file.readings == before + 3


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("defect", [OSError(24, "planted"), RuntimeError("planted"), MemoryError()])
def test_whatever_a_reading_raises_what_was_there_stays_and_it_is_tried_again(
    file: File, defect: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    file.defect = defect
    file.path.write_text("new")
    assert file.renewed.current() == "old"
    told = f"internal_error: {file.path}: {type(defect).__name__}; the words before stay in force"
    assert caplog.messages == [told]
    file.defect = None
    wait_for(lambda: file.renewed.current() == "new")


def test_file_that_was_opened_to_all_is_warned_of_once(file: File, caplog: pytest.LogCaptureFixture) -> None:
    file.path.chmod(0o644)
    for _ in range(5):
        file.renewed.current()
    warning = f"--flag {file.path}: every user of this host may read it (chmod o-rwx)"
    assert caplog.messages == [warning]
    file.path.write_text("new")
    file.settle()
    assert caplog.messages == [warning, warning]
