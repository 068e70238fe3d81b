"""Secrets do not come back out of answers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manager.alerts.secrets import Scrubber
from tests.unit.bridge.strategies import THOROUGH

URL = "https://user:pw@hooks.example.com/services/T0000000/B0000000/XyZsecretXyZ?key=querysecret"


@pytest.mark.parametrize(
    "answer",
    [
        URL,
        f"no such hook: {URL}",
        "no such hook: /services/T0000000/B0000000/XyZsecretXyZ",
        "XyZsecretXyZ is gone",
        "bad querysecret",
        '{"url":"https:\\/\\/user:pw@hooks.example.com\\/services\\/T0000000\\/B0000000\\/XyZsecretXyZ"}',
        "https%3A%2F%2Fuser%3Apw%40hooks.example.com%2Fservices%2FT0000000%2FB0000000%2FXyZsecretXyZ",
    ],
)
def test_address_and_its_parts_are_taken_out(answer: str) -> None:
    shown = Scrubber([URL]).scrub(answer)
    assert "***" in shown
    for part in ("XyZsecretXyZ", "querysecret", "pw@"):
        assert part not in shown


def test_words_of_an_address_that_are_no_secret_stay() -> None:
    assert Scrubber(["http://host/v2/enqueue"]).scrub("v2 of host is ok") == "v2 of host is ok"


def test_address_that_cannot_be_parsed_is_a_secret_all_the_same() -> None:
    assert Scrubber(["http://[bad"]).scrub("at http://[bad") == "at ***"


@THOROUGH
@given(st.lists(st.text(min_size=4, max_size=20).filter(lambda text: "*" not in text)), st.text())
def test_no_secret_is_left_in_any_text(secrets: list[str], text: str) -> None:
    scrubber = Scrubber(secrets)
    for secret in secrets:
        assert secret not in scrubber.scrub(f"{text}{secret}{text}")
