"""Secrets do not come back out of answers, whole or cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spritemesh.secrets import Scrubber
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


def test_secret_that_is_cut_at_the_end_goes() -> None:
    scrubber = Scrubber(["http://host/services/T000SECRETTOKEN"])
    assert scrubber.scrub("posted to /services/T000SECRETTO", cut=True) == "posted to ***"
    assert scrubber.scrub("posted to all", cut=True) == "posted to all"
    # Nothing was cut here: what ends like that is a word of the answer.
    assert scrubber.scrub("see T000", cut=False) == "see T000"


def test_secret_that_is_cut_within_a_character_goes() -> None:
    said = "bad key geheimschlüssel".encode()
    cut = said[: said.index("ü".encode()) + 1]
    assert Scrubber(["geheimschlüssel"]).scrub(cut, cut=True) == "bad key ***"


def test_secrets_that_overlap_go_together() -> None:
    assert Scrubber(["abcdef", "efghij"]).scrub("-abcdefghij-") == "-***-"


@THOROUGH
@given(st.text(min_size=4, max_size=20).filter(lambda text: "*" not in text), st.text(), st.data())
def test_no_beginning_of_a_secret_is_left_where_a_text_is_cut(
    secret: str, text: str, data: st.DataObject
) -> None:
    begun = secret[: data.draw(st.integers(1, len(secret)))]
    assert not Scrubber([secret]).scrub(text + begun, cut=True).endswith(begun)
