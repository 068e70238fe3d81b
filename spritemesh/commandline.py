"""Command lines as v1 reads them (contract 0.5), with argparse for declarations and usage texts.

argparse's own reading differs from v1 in ways that scripts notice: it refuses values that begin with
`-`, abbreviates flags, exits 2, and sorts out errors by kind. v1 walks from left to right and stops at
the first thing to say. So `Parser` keeps what argparse knows about flags and walks by itself.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from spritemesh.errors import OpsError

# Counts and seconds end up in 64 bit fields of the wire.
_LARGEST = 2**63 - 1
_USAGE_COLUMNS = 100


class Stop(Exception):
    """The command line itself decides the end: nothing of the command runs.

    code: exit code. out: text for standard output. error: message for standard error, "" for none.
    """

    def __init__(self, code: int, *, out: str = "", error: str = "") -> None:
        super().__init__(error)
        self.code = code
        self.out = out
        self.error = error


class Parser(argparse.ArgumentParser):
    """Flags of one command. Declare with `add_argument` (store and store_true), then `read`.

    A command may take words, too, each declared by name with nargs="?".

    An empty value of a flag without `type` means "not given", as in v1: the default stays. The one
    exception is `keep_empty`.
    """

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(
            prog=prog,
            description=description,
            add_help=False,
            formatter_class=lambda prog: argparse.HelpFormatter(
                prog, max_help_position=36, width=_USAGE_COLUMNS
            ),
        )
        self.add_argument("-h", "--help", action="store_true", help="show this text and exit")

    def read(self, words: Sequence[str]) -> argparse.Namespace:
        """The values of `words`, which lack program and command.

        Raises Stop for help, an unknown argument, and a last flag without its value; OpsError
        `invalid_request`, naming the flag, for a missing or refused value.
        """
        given = self._walk(words)
        values = argparse.Namespace()
        for action in self._actions:
            setattr(values, action.dest, action.default)
        for action in self._actions:
            if action.required and not given.get(action.dest, ("", ""))[1]:
                raise refused(action.option_strings[-1], "is required")
        for action in self._actions:
            if action.dest not in given:
                continue
            flag, text = given[action.dest]
            if isinstance(action, Repeated):
                texts = tuple(_value(action, flag, one) for one in text) if action.type else text
                setattr(values, action.dest, texts)
            elif action.nargs == 0:
                setattr(values, action.dest, True)
            elif text or action.type or action.choices:
                setattr(values, action.dest, _value(action, flag, text))
        return values

    def _walk(self, words: Sequence[str]) -> dict[str, tuple[str, Any]]:
        """Flag and text of each destination that occurs; of a flag that was given again the last, of a
        `Repeated` one a tuple of all."""
        given: dict[str, tuple[str, Any]] = {}
        rest = iter(words)
        for word in rest:
            name, equals, attached = word.partition("=") if word.startswith("--") else (word, "", "")
            action = self._option_string_actions.get(name)
            if action is None and not word.startswith("-"):
                action = self._next_word(given)
                if action is not None:
                    given[action.dest] = (action.dest, word)
                    continue
            if action is None or (equals and action.nargs == 0):
                known = " (takes no value)" if action is not None else ""
                raise Stop(1, out=self.format_help(), error=f"unknown argument: {nameable(word)}{known}")
            if action.dest == "help":
                raise Stop(0, out=self.format_help())
            if action.nargs == 0:
                given[action.dest] = (name, "")
            else:
                text = attached if equals else next(rest, None)
                if text is None:
                    raise Stop(1)
                before = given.get(action.dest, ("", ()))[1]
                given[action.dest] = (name, (*before, text) if isinstance(action, Repeated) else text)
        return given

    def _next_word(self, given: Mapping[str, object]) -> argparse.Action | None:
        """What the next word that is no flag stands for; None when no more of them are taken."""
        words = (action for action in self._actions if not action.option_strings)
        return next((action for action in words if action.dest not in given), None)


class Repeated(argparse.Action):
    """A flag that may be given several times: its value is a tuple of texts, each as its `type` has it; empty
    without the flag."""

    def __init__(self, option_strings: Sequence[str], dest: str, **settings: Any) -> None:
        super().__init__(option_strings, dest, **{**settings, "default": ()})


def nameable(word: str) -> str:
    """What a message may show of a word that nobody knows: what is behind `=` may be the token of a flag that
    was misspelled."""
    return word.partition("=")[0]


def refused(flag: str, problem: str) -> OpsError:
    """The error for one flag; the message begins with its name."""
    return OpsError("invalid_request", f"{flag} {problem}", field=flag)


def digits(text: str) -> int:
    """Type of flags that take digits only (contract K)."""
    if not (text.isascii() and text.isdigit()):
        raise ValueError("takes digits only")
    # int() of a very long text is slow or refused; its length tells enough.
    if len(text) > 4000 or int(text) > _LARGEST:
        raise ValueError(f"is larger than {_LARGEST}")
    return int(text)


def positive(text: str) -> int:
    """Type of flags that take digits and at least 1."""
    value = digits(text)
    if value < 1:
        raise ValueError("must be at least 1")
    return value


def choice(*allowed: str) -> Callable[[str], str]:
    """Type of flags that take one of `allowed`."""

    def check(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}")
        return text

    return check


def not_empty(text: str) -> str:
    """Type of flags that protect: an empty value, such as that of a variable nobody set, must not switch the
    protection off."""
    if not text:
        raise ValueError("needs a value")
    return text


def keep_empty(text: str) -> str:
    """Type of flags for which an empty value says something."""
    return text


def _value(action: argparse.Action, flag: str, text: str) -> Any:
    value: Any = text
    if action.type is not None:
        convert: Any = action.type
        try:
            value = convert(text)
        except (ValueError, argparse.ArgumentTypeError) as error:
            raise refused(flag, f"{error}, not {text!r}") from error
    if action.choices is not None and value not in action.choices:
        raise refused(flag, f"must be one of {', '.join(map(str, action.choices))}, not {text!r}")
    return value
