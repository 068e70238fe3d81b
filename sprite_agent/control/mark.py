"""Which process is which: its number, and what tells it from a later one with the same number.

Cheap where the system tells it in files, since a mark is made for each command.
"""

import os

_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_ENDED = (b"Z", b"X")
# Of /proc/<pid>/stat after the name: state, and start in ticks since the boot.
_STATE, _START = 0, 19


def process_mark(pid: int) -> str:
    """`<pid> <what tells it apart>`; "" when there is no such process, or it has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name may hold anything, brackets and spaces included.
            fields = file.read().rpartition(b")")[2].split()
        with open(_BOOT_ID, encoding="ascii") as file:
            boot = file.read().strip()
    except FileNotFoundError:
        return "" if os.path.exists(_BOOT_ID) else _mark_by_psutil(pid)
    except OSError:
        return ""  # it ended while its file was read
    return "" if fields[_STATE] in _ENDED else f"{pid} {boot}:{fields[_START].decode()}"


def is_alive(mark: str) -> bool:
    """Whether the process of a mark is there still. A process that ended and is not waited for is not."""
    pid = mark.partition(" ")[0]
    return pid.isdecimal() and process_mark(int(pid)) == mark


def _mark_by_psutil(pid: int) -> str:
    # Late: it takes longer to import than a command to start.
    from sprite_agent.runtime.process import process_facts

    facts = process_facts(pid)
    return "" if facts is None else f"{pid} {facts.started_at}"
