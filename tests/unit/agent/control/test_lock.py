"""Locks of loops and keys: one holder over all processes, and nothing left behind of keys."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sprite_agent.control.lock import forget_left_keys, key_lock, loop_lock
from spritemesh.errors import OpsError
from tests.harness.disk import largest_file

HOLD = """
import sys
from sprite_agent.control.lock import key_lock, loop_lock
with key_lock(sys.argv[1], "key") as key, loop_lock(sys.argv[1], "alpha") as loop:
    print(key, loop, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def locks(tmp_path: Path) -> str:
    return str(tmp_path / "agent" / "locks")


def test_lock_has_one_holder(locks: str) -> None:
    for lock in (loop_lock, key_lock):
        with lock(locks, "one") as first, lock(locks, "one") as second, lock(locks, "two") as other:
            assert (first, second, other) == (True, False, True)
        with lock(locks, "one") as again:
            assert again


def test_loop_and_key_of_one_name_are_two_locks(locks: str) -> None:
    with loop_lock(locks, "one") as first, key_lock(locks, "one") as second:
        assert (first, second) == (True, True)


def test_key_leaves_no_file(locks: str) -> None:
    for number in range(3):
        with key_lock(locks, f"key {number}\x00/..{'x' * 500}"):
            assert len(os.listdir(locks)) == 1
    assert os.listdir(locks) == []


def test_locks_end_with_their_process(locks: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, locks], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True True\n"
        with key_lock(locks, "key") as key, loop_lock(locks, "alpha") as loop:
            assert (key, loop) == (False, False)
        forget_left_keys(locks)
        with key_lock(locks, "key") as key:
            assert not key
        holder.kill()
    # The file of the key is left, and free.
    assert len(os.listdir(locks)) == 2
    with key_lock(locks, "key") as key, loop_lock(locks, "alpha") as loop:
        assert (key, loop) == (True, True)
        forget_left_keys(locks)
        with key_lock(locks, "key") as key:
            assert not key
    assert len(os.listdir(locks)) == 1


def test_what_dead_processes_left_of_keys_is_removed(locks: str) -> None:
    os.makedirs(locks)
    for name in ("key-1", "key-2", "loop"):
        Path(locks, name).touch()
    forget_left_keys(locks)
    assert os.listdir(locks) == ["loop"]
    forget_left_keys(locks + "/nowhere")


def test_file_that_goes_with_its_lock_lets_nobody_in_twice(locks: str) -> None:
    """Many take and leave one key; those who opened a file that is gone by now must notice."""
    inside = threading.Lock()
    taken: list[int] = []

    def take(number: int) -> None:
        while len(taken) < 300:
            with key_lock(locks, "key") as held:
                if held:
                    assert inside.acquire(blocking=False)
                    taken.append(number)
                    inside.release()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(take, range(8)))
    assert os.listdir(locks) == []


def test_place_without_locks_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for lock in (loop_lock, key_lock):
        with pytest.raises(OpsError) as caught, lock(str(tmp_path / "file" / "locks"), "one"):
            pass
        assert caught.value.reason == "ledger_unavailable"


def test_full_disk_is_no_hindrance(locks: str) -> None:
    with largest_file(0), loop_lock(locks, "alpha") as held:
        assert held
