"""Slopes of what a soak samples, and what is said of them."""

import math
import random

import pytest

from bench.trend import Sample, second_half, trend


def sampled(minutes: int, slope: float, *, noise: float = 0.0, wave: float = 0.0) -> list[Sample]:
    """One a second. slope: a minute. wave: of a period of ten seconds."""
    chance = random.Random(1)
    return [
        Sample(at, 100 + slope * at / 60 + chance.gauss(0, noise) + wave * math.sin(at * math.tau / 10))
        for at in range(minutes * 60)
    ]


def test_slope_of_a_line_is_found() -> None:
    found = trend(sampled(15, 3.0))
    assert found.slope == pytest.approx(3.0)
    assert found.error == pytest.approx(0.0, abs=1e-9)
    assert (found.least, found.stretch) == (100, 60)


@pytest.mark.parametrize(
    ("slope", "noise", "verdict"),
    [(0.0, 1.0, "flat"), (-5.0, 1.0, "flat"), (5.0, 1.0, "grows"), (0.9, 100.0, "undecided")],
)
def test_noise_decides_only_how_sure_one_is(slope: float, noise: float, verdict: str) -> None:
    found = trend(sampled(15, slope, noise=noise, wave=10.0))
    assert found.verdict(1.0) == verdict
    assert abs(found.slope - slope) < 4 * found.error


def test_short_time_decides_nothing() -> None:
    assert trend(sampled(2, 5.0)).verdict(1.0) == "undecided"
    with pytest.raises(ValueError, match="3 samples"):
        trend(sampled(1, 0.0)[:3])


def test_first_half_does_not_count() -> None:
    samples = [*sampled(2, 100.0), *(Sample(120.0 + at, 300.0) for at in range(120))]
    assert trend(second_half(samples)).slope == pytest.approx(0.0, abs=1e-6)
