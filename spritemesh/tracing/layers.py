"""The layers that a reasoning runtime is built of, each with the prefix of its trace ids."""

from typing import NamedTuple


class Layer(NamedTuple):
    """A layer. name: as `hrm_layer` has it. prefix: as its ids begin. Both are accepted wherever one is
    named."""

    name: str
    prefix: str


SYSTEM = Layer("system", "sys")
LAYERS = (
    Layer("altitude", "alt"),
    Layer("focus", "foc"),
    Layer("reasoning", "rsn"),
    Layer("learning", "lrn"),
    Layer("memory", "mem"),
    SYSTEM,
)
# By name and by prefix.
BY_WORD = {word: layer for layer in LAYERS for word in layer}


def allowed() -> str:
    """The layers, for a message."""
    return ", ".join(f"{layer.name} ({layer.prefix})" for layer in LAYERS)


def layer_of(hrm: object) -> Layer:
    """The layer that `hrm` names, in full or by its prefix. Raises ValueError telling what is allowed."""
    try:
        return BY_WORD[hrm]  # type: ignore[index] # most other kinds of values are no name
    except Exception:  # a value's own, too, when it is hashed or compared
        told = ascii(hrm)[:40] if type(hrm) is str else f"a value of type {type(hrm).__name__}"
        raise ValueError(f"unknown layer: {told}; allowed are {allowed()}") from None
