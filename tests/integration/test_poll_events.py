"""`ops-manager poll-events`, from files and through an agent."""

import array
import fcntl
import json
import signal
import subprocess
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness.agents import TOKEN, Agent, StartAgent
from tests.harness.loops import LoopFiles, Repo, event, events
from tests.harness.manager import Ran, Running, command, cursor_of, run
from tests.harness.streams import place
from tests.harness.waiting import wait_for

WAYS = ("local", "agent")


class Desk:
    """The command's flags for one loop, by one of the ways."""

    def __init__(self, loop: LoopFiles, agent: Agent | None) -> None:
        self.loop = loop
        self.agent = agent
        self.cursor_file = loop.directory / "ops-manager.cursor.json"
        self.words = ["poll-events", "--repo", str(loop.repo), "--loop", loop.loop_id]
        if agent is not None:
            self.words += ["--service-base-url", agent.url, "--service-token", TOKEN]

    def poll(self, *flags: str) -> Ran:
        return run(*self.words, *flags)


@pytest.fixture(params=WAYS)
def desk(request: pytest.FixtureRequest, loop: LoopFiles, start: StartAgent) -> Desk:
    return Desk(loop, start() if request.param == "agent" else None)


@pytest.fixture
def follow() -> Iterator[Callable[..., Running]]:
    """Starts followers, and ends them with the test."""
    started: list[Running] = []

    def begin(desk: Desk, *flags: str) -> Running:
        started.append(Running(*desk.words, "--follow", *flags))
        return started[-1]

    yield begin
    for running in started:
        running.close()


Follow = Callable[..., Running]


# --- once ----------------------------------------------------------------------------------------------


def test_each_run_prints_what_is_new_since_the_last(desk: Desk) -> None:
    desk.loop.append(events(1, 3) + b"\n" + event(5) + b'{"torn')
    first = desk.poll("--trace-id", "t")
    assert (first.code, first.err, first.events) == (0, "", [1, 2, 3, 5])
    assert {document["traceId"] for document in first.documents} == {"t"}
    assert first.documents[0]["event"]["raw"] == json.loads(event(1))
    assert desk.poll().events == []
    desk.loop.append(b'":1}\n' + event(7))
    # The torn line has become whole, and is no event.
    assert desk.poll().code == 1
    third = desk.poll("--on-invalid-line", "quarantine")
    assert (third.code, third.events) == (0, [7])


def test_cursor_holds_a_place_that_can_be_proved(desk: Desk) -> None:
    data = events(1, 3) + b"\n\n"
    desk.loop.append(data)
    desk.poll()
    cursor = cursor_of(desk.cursor_file)
    assert (cursor["eventLineOffset"], cursor["eventLineCount"]) == (3, 5)
    assert cursor["eventsFile"] == ".superloop/loops/alpha/events.jsonl"
    assert cursor["position"]["line"] == 5
    assert cursor["position"]["logDigest"] == place(data).digest.hex()
    assert cursor["position"]["firstLineDigest"] == place(data).first_line_digest.hex()
    assert desk.cursor_file.read_text().startswith('{\n  "schemaVersion": "v1",\n')


def test_cursor_may_lie_elsewhere(desk: Desk, tmp_path: Path) -> None:
    desk.loop.append(events(1, 3))
    elsewhere = tmp_path / "new" / "directory" / "cursor.json"
    assert desk.poll("--cursor-file", str(elsewhere), "--max-events", "2").events == [1, 2]
    assert cursor_of(elsewhere)["eventLineOffset"] == 2
    assert desk.poll("--cursor-file", str(elsewhere)).events == [3]
    assert not desk.cursor_file.exists()


def test_event_limit_is_kept_and_the_rest_comes_next_time(desk: Desk) -> None:
    desk.loop.append(events(1, 5))
    assert [desk.poll("--max-events", "2").events for _ in range(4)] == [[1, 2], [3, 4], [5], []]
    assert desk.poll("--from-start", "--max-events", "1").events == [1]
    assert cursor_of(desk.cursor_file)["eventLineOffset"] == 1


UNUSABLE_CURSORS = {
    "{half": "ops-manager.cursor.json",
    "": "ops-manager.cursor.json",
    "[]": "ops-manager.cursor.json",
    '{"eventLineOffset":-1}': "ops-manager.cursor.json",
    '{"eventLineOffset":1.5}': "ops-manager.cursor.json",
    '{"eventLineOffset":9}': "9",
}


def test_cursor_that_cannot_be_used_is_refused_and_left_alone(desk: Desk) -> None:
    desk.loop.append(events(1, 3))
    for content, named in UNUSABLE_CURSORS.items():
        desk.cursor_file.write_text(content)
        done = desk.poll()
        assert (done.code, done.out) == (1, "")
        assert done.err.startswith("error: ")
        assert named in done.err
        assert desk.cursor_file.read_text() == content
    assert desk.poll("--from-start").events == [1, 2, 3]


def test_cursor_of_a_v1_tool_is_taken_over(desk: Desk) -> None:
    desk.loop.append(events(1, 3))
    desk.cursor_file.write_text('{"eventLineOffset":"2","other":true}')
    assert desk.poll().events == [3]


def test_replaced_log_is_read_from_its_start_with_a_note(desk: Desk) -> None:
    desk.loop.append(events(1, 4))
    desk.poll()
    desk.loop.replace(events(8, 9))
    done = desk.poll()
    assert (done.code, done.events) == (0, [1, 2])
    assert done.err.startswith("note: log_replaced")
    assert (desk.poll().events, desk.poll().err) == ([], "")


def test_truncated_log_is_an_error_until_told_otherwise(desk: Desk) -> None:
    desk.loop.append(events(1, 4))
    desk.poll()
    desk.loop.replace(events(1, 2))
    before = desk.cursor_file.read_text()
    done = desk.poll()
    assert (done.code, done.out, desk.cursor_file.read_text()) == (1, "", before)
    assert "2" in done.err
    assert "4" in done.err
    assert desk.poll("--from-start").events == [1, 2]


def test_invalid_line_ends_the_run_behind_what_precedes_it(desk: Desk) -> None:
    desk.loop.append(events(1, 2) + b"{half\n" + event(4))
    done = desk.poll()
    assert (done.code, done.events) == (1, [1, 2])
    assert "line 3" in done.err
    assert "events.jsonl" in done.err
    assert not desk.cursor_file.exists()
    assert desk.poll().events == [1, 2]


def test_invalid_line_is_passed_once_on_request(desk: Desk) -> None:
    desk.loop.append(event(1) + b"{half\n" + b"[]\n" + b"x" * (1 << 21) + b"\n" + event(5))
    done = desk.poll("--on-invalid-line", "quarantine")
    assert (done.code, done.events) == (0, [1, 5])
    notes = done.err.splitlines()
    assert [note.split(":")[1].strip() for note in notes] == [
        "invalid_json_line",
        "line_not_object",
        "line_too_long",
    ]
    assert all(f"line {number}" in note for number, note in enumerate(notes, 2))
    again = desk.poll("--on-invalid-line", "quarantine")
    assert (again.code, again.out, again.err) == (0, "", "")


def test_missing_loop_is_refused_by_name(desk: Desk) -> None:
    words = [word if word != "alpha" else "ghost" for word in desk.words]
    done = run(*words)
    assert (done.code, done.out) == (1, "")
    assert "ghost" in done.err
    assert not (desk.loop.directory.parent / "ghost").exists()


def test_two_at_once_both_print_and_leave_a_whole_cursor(desk: Desk) -> None:
    desk.loop.append(events(1, 2000))
    pair = [Running(*desk.words) for _ in range(2)]
    done = [running.end() for running in pair]
    for running in pair:
        running.close()
    assert [found.code for found in done] == [0, 0]
    # Whoever came second may have found the other's cursor; nobody sees half of anything.
    assert list(range(1, 2001)) in [found.events for found in done]
    assert all(found.events in (list(range(1, 2001)), []) for found in done)
    assert cursor_of(desk.cursor_file)["eventLineOffset"] == 2000
    assert [path.name for path in desk.loop.directory.glob("*.tmp")] == []


def test_reader_that_goes_away_is_no_failure_to_shout_about(loop: LoopFiles) -> None:
    loop.append(b"".join(event(number, message="x" * 500) for number in range(1, 3000)))
    words = command("poll-events", "--repo", str(loop.repo), "--loop", "alpha")
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode != 0
    assert not (loop.directory / "ops-manager.cursor.json").exists()


# --- following -----------------------------------------------------------------------------------------


def test_follower_prints_lines_as_they_come_and_keeps_its_place(desk: Desk, follow: Follow) -> None:
    desk.loop.append(events(1, 2))
    running = follow(desk)
    running.wait_for_event(2)
    desk.loop.append(event(3))
    running.wait_for_event(3)
    wait_for(
        lambda: desk.cursor_file.exists() and cursor_of(desk.cursor_file)["eventLineOffset"] == 3,
        what="the cursor to be kept while the follower runs",
    )
    desk.loop.append(event(4))
    running.wait_for_event(4)
    done = running.end(signal.SIGINT)
    assert (done.code, done.events) == (130, [1, 2, 3, 4])
    assert "Traceback" not in done.err
    assert desk.poll().events == []


def test_follower_that_was_killed_repeats_at_most_what_it_had_not_stored(desk: Desk, follow: Follow) -> None:
    running = follow(desk)
    for number in range(1, 4):
        desk.loop.append(event(number))
        running.wait_for_event(number)
    wait_for(lambda: desk.cursor_file.exists() and cursor_of(desk.cursor_file)["eventLineOffset"] == 3)
    running.end(signal.SIGKILL)
    desk.loop.append(event(4))
    assert desk.poll().events == [4]


def test_follower_goes_over_to_a_replaced_log(desk: Desk, follow: Follow) -> None:
    desk.loop.append(events(1, 5))
    running = follow(desk)
    running.wait_for_event(5)
    desk.loop.replace(events(11, 12))
    wait_for(lambda: running.events[5:] == [1, 2], what="the new log")
    desk.loop.append(event(13))
    wait_for(lambda: running.events[5:] == [1, 2, 3])
    wait_for(lambda: "log_replaced" in running.said, what="the note")
    assert running.end(signal.SIGINT).code == 130
    assert desk.poll().events == []


@pytest.mark.parametrize("choice", ["fail", "quarantine"])
def test_invalid_line_ends_a_follower_or_is_passed(desk: Desk, follow: Follow, choice: str) -> None:
    running = follow(desk, "--on-invalid-line", choice)
    desk.loop.append(event(1))
    running.wait_for_event(1)
    desk.loop.append(b"{half\n" + event(3))
    if choice == "fail":
        done = running.end()
        assert (done.code, done.events) == (1, [1])
        assert "line 2" in done.err
        return
    running.wait_for_event(3)
    wait_for(lambda: "invalid_json_line" in running.said, what="the note")
    assert running.end(signal.SIGINT).code == 130
    assert desk.poll("--on-invalid-line", "quarantine").out == ""


def test_event_limit_ends_a_follower(desk: Desk, follow: Follow) -> None:
    running = follow(desk, "--max-events", "2")
    desk.loop.append(events(1, 3))
    done = running.end()
    assert (done.code, done.events) == (0, [1, 2])
    assert desk.poll().events == [3]


def test_follower_outlives_its_agent(loop: LoopFiles, start: StartAgent, follow: Follow, repo: Repo) -> None:
    loop.append(events(1, 2))
    agent = start()
    desk = Desk(loop, agent)
    running = follow(desk)
    running.wait_for_event(2)
    agent.process.kill()
    agent.wait()
    loop.append(events(3, 4))
    wait_for(lambda: "trying again" in running.said, what="the wait to be told")
    start(grpc_at=agent.address)
    running.wait_for_event(4)
    loop.append(event(5))
    running.wait_for_event(5)
    done = running.end(signal.SIGINT)
    assert (done.code, done.events) == (130, [1, 2, 3, 4, 5])


def test_two_followers_with_cursors_of_their_own_see_the_same(
    loop: LoopFiles, follow: Follow, tmp_path: Path
) -> None:
    desk = Desk(loop, None)
    pair = [follow(desk, "--cursor-file", str(tmp_path / name)) for name in ("a", "b")]
    for number in range(1, 6):
        loop.append(event(number))
        for running in pair:
            running.wait_for_event(number)
    for running in pair:
        assert running.end(signal.SIGINT).events == [1, 2, 3, 4, 5]
    assert cursor_of(tmp_path / "a")["position"] == cursor_of(tmp_path / "b")["position"]


def test_follower_that_ends_at_an_invalid_line_keeps_what_it_printed(desk: Desk, follow: Follow) -> None:
    running = follow(desk)
    desk.loop.append(events(1, 2))
    running.wait_for_event(2)
    desk.loop.append(event(3) + b"{half\n" + event(5))
    done = running.end()
    assert (done.code, done.events) == (1, [1, 2, 3])
    again = follow(desk).end()
    assert (again.code, again.out) == (1, "")
    assert desk.poll("--on-invalid-line", "quarantine").events == [5]


def test_follower_that_fails_before_its_first_event_leaves_the_cursor_alone(
    desk: Desk, follow: Follow
) -> None:
    desk.loop.append(events(1, 3))
    desk.cursor_file.write_text('{"eventLineOffset":9}')
    assert follow(desk).end().code == 1
    assert desk.cursor_file.read_text() == '{"eventLineOffset":9}'


def test_follower_interrupted_while_nobody_reads_loses_nothing(loop: LoopFiles) -> None:
    loop.append(b"".join(event(number, message="x" * 500) for number in range(1, 1001)))
    desk = Desk(loop, None)
    with subprocess.Popen(
        command(*desk.words, "--follow"), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        pipe = process.stdout.fileno()
        # Full but for a page, so that the writer sleeps in the middle of its events.
        full = fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ) - 4096
        wait_for(lambda: _unread(pipe) >= full, what="a full pipe")
        process.send_signal(signal.SIGINT)
        printed = [line for line in process.stdout.read().split(b"\n")[:-1] if line]
    assert process.returncode == 130
    seen = [json.loads(line)["sequence"]["value"] for line in printed]
    assert set(seen) | set(desk.poll().events) == set(range(1, 1001))


def _unread(pipe: int) -> int:
    """Bytes that wait in a pipe."""
    count = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, count)
    return count[0]
