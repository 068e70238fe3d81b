"""When a certificate's end is told of, and how."""

import datetime as dt
from pathlib import Path

import pytest
from cryptography import x509

from sprite_agent.probe.lifetime import Lifetime, lifetime_of_chain
from tests.harness.pki import Authority

HOUR = 3600.0
DAY = 24 * HOUR


@pytest.mark.parametrize(
    ("life", "left", "is_ending"),
    [
        (365 * DAY, 14.1 * DAY, False),
        (365 * DAY, 13.9 * DAY, True),
        (30 * DAY, 10.1 * DAY, False),
        (30 * DAY, 9.9 * DAY, True),
        (6 * HOUR, 2.1 * HOUR, False),
        (6 * HOUR, 1.9 * HOUR, True),
    ],
)
def test_end_is_told_before_14_days_or_a_third_of_the_life(
    life: float, left: float, *, is_ending: bool
) -> None:
    assert Lifetime(0, life).is_ending(life - left) is is_ending


@pytest.mark.parametrize(
    ("left", "told"), [(90 * DAY, "90 days"), (47 * HOUR, "47 hours"), (600, "10 minutes"), (-5, "0 minutes")]
)
def test_time_that_is_left_is_told_in_its_unit(left: float, told: str) -> None:
    assert Lifetime(0, 100 * DAY).told(100 * DAY - left) == f"good for {told}"


def test_fault_names_the_moment() -> None:
    lifetime = Lifetime(DAY, 2 * DAY)
    assert lifetime.fault(DAY) == lifetime.fault(2 * DAY) == ""
    assert lifetime.fault(0) == "is not valid before 1970-01-02T00:00:00Z"
    assert lifetime.fault(3 * DAY) == "has expired, 1970-01-03T00:00:00Z"


def test_first_to_end_of_a_chain_counts_and_is_read_as_others_read_it(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    long, short = authority.server("long"), authority.server("short", left=dt.timedelta(hours=1))
    decoded = x509.load_pem_x509_certificate(short.cert.read_bytes())
    expected = (decoded.not_valid_before_utc.timestamp(), decoded.not_valid_after_utc.timestamp())
    assert lifetime_of_chain(long.cert.read_bytes() + short.cert.read_bytes()) == expected
    # From 2050 on, times are written otherwise.
    far = authority.server("far", left=dt.timedelta(days=36500))
    until = x509.load_pem_x509_certificate(far.cert.read_bytes())
    assert lifetime_of_chain(far.cert.read_bytes()).ends == until.not_valid_after_utc.timestamp()
