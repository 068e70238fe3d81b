"""What the demonstration starts, and how it shows what it sees."""

import os
import signal
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from manager.demo.children import Children
from manager.demo.ending import Ending, Stopped
from manager.demo.screen import Screen
from manager.fleet.document import Fleet
from superloop.ops.v1 import manager_pb2 as pb


def test_program_that_is_just_being_started_when_the_end_comes_is_ended_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    started: list[int] = []

    class Interrupted(subprocess.Popen[Any]):
        """A program at whose birth the operator types Ctrl-C."""

        def __init__(self, *words: Any, **flags: Any) -> None:
            super().__init__(*words, **flags)
            started.append(self.pid)
            os.kill(os.getpid(), signal.SIGINT)

    ending = Ending()
    try:
        with closing(Children(str(tmp_path / "work"), "", dict(os.environ), ending)) as programs:
            (tmp_path / "work").mkdir()
            monkeypatch.setattr(subprocess, "Popen", Interrupted)
            with pytest.raises(Stopped):
                programs.start("server", "http.server", "0", "--bind", "127.0.0.1")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert len(started) == 1
    assert not psutil.pid_exists(started[0])
    assert not (tmp_path / "work").exists()


def test_line_of_a_loop_names_its_reasons_and_says_nothing_where_there_is_none(
    capsys: pytest.CaptureFixture[str],
) -> None:
    views = [
        pb.LoopView(loop_id="well"),
        pb.LoopView(loop_id="ill", reason_codes=["runtime_process_dead"]),
        pb.LoopView(loop_id="worse", reason_codes=["runtime_process_dead", "clock_skew"]),
    ]
    Screen().show(Fleet("fleet", 0.0, views))
    ends = [line.partition("order -, ")[2] for line in capsys.readouterr().out.splitlines()]
    assert ends == ["-", "- (runtime_process_dead)", "- (runtime_process_dead +1)"]
