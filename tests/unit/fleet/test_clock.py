"""The manager's clock, when somebody sets that of the machine."""

import time

import pytest

from manager.fleet.clock import STEP_SECONDS, SteadyClock


class Machine:
    """Both clocks of a machine, as a test sets them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall, self.monotonic = 1_700_000_000.0, 50.0
        monkeypatch.setattr(time, "time", lambda: self.wall)
        monkeypatch.setattr(time, "monotonic", lambda: self.monotonic)

    def run(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


@pytest.mark.parametrize("seconds", [3600.0, -3600.0])
def test_clock_that_is_set_runs_on_until_it_catches_up(machine: Machine, seconds: float) -> None:
    clock = SteadyClock()
    before = clock()
    machine.run(10)
    machine.wall += seconds
    assert clock() == before + 10
    assert clock.catch_up() == seconds
    assert clock() == machine.wall
    assert clock.catch_up() == 0


def test_clock_that_is_slewed_is_followed_without_a_word(machine: Machine) -> None:
    clock = SteadyClock()
    for _ in range(10):
        machine.run(1)
        machine.wall += STEP_SECONDS / 2
        assert clock.catch_up() == 0
    assert clock() == machine.wall
