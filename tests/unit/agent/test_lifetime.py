"""When a certificate's end is told of, and how."""

import datetime as dt
from pathlib import Path

import pytest
from cryptography import x509

from sprite_agent.probe.lifetime import Authorities, Chain, Lifetime, lifetimes_in
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


def test_each_certificate_of_a_file_is_read_as_others_read_it(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    long, short = authority.server("long"), authority.server("short", left=dt.timedelta(hours=1))
    # From 2050 on, times are written otherwise.
    far = authority.server("far", left=dt.timedelta(days=36500))
    texts = [pair.cert.read_bytes() for pair in (long, short, far)]
    decoded = [x509.load_pem_x509_certificate(text) for text in texts]
    expected = [
        (one.not_valid_before_utc.timestamp(), one.not_valid_after_utc.timestamp()) for one in decoded
    ]
    assert list(lifetimes_in(b"".join(texts))) == expected


PAST, NOW, LATER = Lifetime(0, 9 * DAY), Lifetime(0, 100 * DAY), Lifetime(20 * DAY, 400 * DAY)
SOON, AT = Lifetime(0, 12 * DAY), 10 * DAY


@pytest.mark.parametrize(
    ("chain", "fault"),
    [
        ((NOW, SOON), ""),
        # Either way, and whichever of them ends first.
        ((LATER, NOW), "is not valid before 1970-01-21T00:00:00Z"),
        ((NOW, LATER), "is not valid before 1970-01-21T00:00:00Z"),
        ((NOW, PAST), "has expired, 1970-01-10T00:00:00Z"),
    ],
)
def test_chain_is_valid_when_all_of_it_are(chain: tuple[Lifetime, ...], fault: str) -> None:
    assert Chain(chain).fault(AT) == fault


def test_chain_ends_with_the_first_of_it() -> None:
    assert (Chain((NOW, SOON)).told(AT), Chain((NOW, SOON)).is_ending(AT)) == ("good for 2 days", True)
    assert (Chain((NOW,)).told(AT), Chain((NOW,)).is_ending(AT)) == ("good for 90 days", False)


@pytest.mark.parametrize(
    ("authorities", "fault", "is_ending"),
    [
        ((NOW, LATER), "", True),
        ((NOW, NOW), "", False),
        ((NOW, SOON), "", True),
        ((PAST, NOW), "", True),
        ((PAST, LATER), "has expired, 1970-01-10T00:00:00Z", True),
    ],
)
def test_authorities_are_of_use_while_one_is_and_are_told_of_when_one_ends(
    authorities: tuple[Lifetime, ...], fault: str, *, is_ending: bool
) -> None:
    found = Authorities(authorities)
    assert (found.fault(AT), found.is_ending(AT)) == (fault, is_ending)


def test_authorities_that_have_ended_are_counted() -> None:
    assert Authorities((SOON, NOW)).told(AT) == "good for 2 days"
    told = Authorities((PAST, NOW, LATER)).told(AT)
    assert told == "good for 90 days; of its 3 authorities 2 not: one has expired, 1970-01-10T00:00:00Z"
