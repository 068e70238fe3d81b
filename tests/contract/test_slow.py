"""Golden cases that wait as long as a service confirms: they run beside the other tests, and end last."""

from concurrent.futures import Future

import pytest

from tests.contract.test_golden import slow_plays_of

# Two plays at 30 s, on a busy machine.
_SECONDS = 55


@pytest.mark.parametrize("slow_play", slow_plays_of(), ids="-".join)
def test_slow_case_matches_the_recording(
    slow_play: tuple[str, str], slow_plays: dict[tuple[str, str], Future[None]]
) -> None:
    slow_plays[slow_play].result(_SECONDS)
