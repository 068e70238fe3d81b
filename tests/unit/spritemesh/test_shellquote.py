"""Words for people to paste, as bash itself quotes them."""

import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spritemesh.shellquote import quote, quote_words

BASH = shutil.which("bash")
# What the rules are about, between letters of all kinds.
_MARKS = " '\"\\|&;()<>!{}*[]?^$`,#~:=-_./%@+\a\b\t\n\v\f\r\x1b\x01\x1f\x7f"
WORDS = st.lists(
    st.text(st.sampled_from(_MARKS + "abzÄéß漢🙂09\xa0\xad\u2028\u0378\ue000"), max_size=12),
    min_size=1,
    max_size=40,
)


@pytest.mark.parametrize(
    ("word", "quoted"),
    [
        ("", "''"),
        ("plain-word_1.2/3@4%5+6", "plain-word_1.2/3@4%5+6"),
        ("it's $5 & more", r"it\'s\ \$5\ \&\ more"),
        ("Ana María", r"Ana\ María"),
        ("a,b", r"a\,b"),
        ("#1 of #2", r"\#1\ of\ #2"),
        ("~/a ~b c:~d e=~f g~", r"\~/a\ ~b\ c:\~d\ e=\~f\ g~"),
        ("two\nlines", r"$'two\nlines'"),
        ("a\u2028b", r"$'a\342\200\250b'"),
        ("a\u0378b", r"$'a\315\270b'"),
        ("a\xa0\xadb", "a\xa0\xadb"),
        ("\x1b[1m it's \\ \x7f", r"$'\E[1m it\'s \\ \177'"),
    ],
)
def test_word_is_quoted_by_the_rules(word: str, quoted: str) -> None:
    assert quote(word) == quoted


def test_words_have_single_spaces_between() -> None:
    assert quote_words(["a b", "", "c"]) == r"a\ b '' c"


@pytest.mark.skipif(BASH is None, reason="there is no bash")
@given(WORDS)
@settings(max_examples=25, deadline=None)
def test_quoting_is_that_of_bash(words: list[str]) -> None:
    script = 'for word; do printf "%q\\0" "$word"; done'
    found = subprocess.run(
        [str(BASH), "--norc", "-c", script, "bash", *words],
        env={"LC_ALL": "C.UTF-8"},
        stdout=subprocess.PIPE,
        check=True,
    )
    assert [quote(word) for word in words] == found.stdout.decode().split("\0")[:-1]


@pytest.mark.skipif(BASH is None, reason="there is no bash")
@given(WORDS)
@settings(max_examples=25, deadline=None)
def test_shell_reads_the_words_back(words: list[str]) -> None:
    script = f"printf '%s\\0' {quote_words(words)}"
    found = subprocess.run(
        [str(BASH), "--norc", "-c", script], env={"LC_ALL": "C.UTF-8"}, stdout=subprocess.PIPE, check=True
    )
    assert found.stdout.decode().split("\0")[:-1] == words
