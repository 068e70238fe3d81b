"""How often somebody may do something, and who somebody is."""

import pytest

from sprite_agent import rates
from sprite_agent.rates import Buckets, Failures, Rates, network_of
from spritemesh.errors import OpsError


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_all_of_a_minute_may_come_at_once_and_come_back_evenly(clock: Clock) -> None:
    buckets = Buckets(60, clock)
    assert [buckets.take("a") for _ in range(61)] == [True] * 60 + [False]
    assert buckets.seconds_to_next("a") == pytest.approx(1)
    assert buckets.seconds_to_next("b") == 0
    clock.now += 2
    assert [buckets.take("a") for _ in range(3)] == [True, True, False]
    clock.now += 3600
    assert [buckets.take("a") for _ in range(61)] == [True] * 60 + [False]


def test_only_so_many_names_are_remembered(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "MAX_NAMES", 3)
    buckets = Buckets(1, clock)
    for name in "abcd":
        assert buckets.take(name)
    assert not buckets.take("d")
    assert not buckets.take("b")
    assert buckets.take("a")  # forgotten, as the one longest silent


def test_control_beyond_the_rate_is_told_when_to_come_back(clock: Clock) -> None:
    controls = Rates(2, clock)
    controls.take("ada")
    controls.take("ada")
    with pytest.raises(OpsError) as caught:
        controls.take("ada")
    assert caught.value.reason == "control_rate_limited"
    assert caught.value.retry_after == pytest.approx(30)
    controls.take("bob")


def test_an_address_is_heard_again_after_a_while(clock: Clock) -> None:
    failures = Failures(2, clock)
    for _ in range(2):
        failures.check("10.0.0.1")
        failures.note("10.0.0.1")
    with pytest.raises(OpsError) as caught:
        failures.check("10.0.0.1")
    assert caught.value.reason == "too_many_failures"
    assert caught.value.retry_after == pytest.approx(30)
    failures.check("10.0.0.2")
    clock.now += 30
    failures.check("10.0.0.1")


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("unix", "unix"),
        ("", ""),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::9", "2001:db8:1:3::/64"),
        ("::1", "::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("no:address", "no:address"),
    ],
)
def test_hosts_of_one_ipv6_network_count_as_one(host: str, network: str) -> None:
    assert network_of(host) == network
