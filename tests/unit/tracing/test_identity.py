"""Ids of spans, and the layers that they begin with."""

import os
import re
import threading

import pytest

from spritemesh.tracing.identity import is_trace_id, new_id
from spritemesh.tracing.layers import LAYERS, layer_of
from spritemesh.tracing.tracers import Tracer


def test_a_layer_goes_by_its_name_and_by_its_prefix() -> None:
    assert [(layer.name, layer.prefix) for layer in LAYERS] == [
        ("altitude", "alt"), ("focus", "foc"), ("reasoning", "rsn"), ("learning", "lrn"), ("memory", "mem"),
        ("system", "sys"),
    ]  # fmt: skip
    for layer in LAYERS:
        assert layer_of(layer.name) is layer_of(layer.prefix) is layer


def test_an_id_tells_layer_and_second_and_can_be_made_while_tracing_is_off() -> None:
    tracer = Tracer()
    tracer.configure(enabled=False)
    made = tracer.generate_id("focus")
    assert re.fullmatch(r"foc_\d{10}_[0-9a-f]{16}", made)
    assert is_trace_id(made)
    with pytest.raises(ValueError, match="unknown layer: 'fokus'"):
        tracer.generate_id("fokus")


def test_no_id_is_made_twice_by_threads_in_one_second() -> None:
    made: list[str] = []
    threads = [
        threading.Thread(target=lambda: made.extend(new_id("alt", 1_705_180_800.5) for _ in range(2_000)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 8_000


def test_the_child_of_a_fork_makes_other_ids() -> None:
    second = 1_705_180_800.0
    new_id("alt", second)
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.write(writer, "".join(new_id("alt", second) for _ in range(50)).encode())
        os._exit(0)
    ours = [new_id("alt", second) for _ in range(50)]
    os.waitpid(child, 0)
    os.close(writer)
    with open(reader, encoding="ascii") as file:
        text = file.read()
    theirs = re.findall(r"alt_\d+_[0-9a-f]{16}", text)
    assert len(set(ours) | set(theirs)) == 100


@pytest.mark.parametrize(
    ("value", "is_one"),
    [
        ("alt_1705180800_a3f2", True), ("sys_0_0000", True), ("mem_1_zzzz9", True),
        ("alt_1705180800_a3f", False), ("alt_1705180800_A3F2", False), ("altitude_1705180800_a3f2", False),
        ("xyz_1705180800_a3f2", False), ("alt_1705180800", False), ("alt__a3f2", False), ("", False),
        ("alt_1705180800_a3f2\n", False), ("alt_1705180800_a3_2", False), ("alt_١_a3f2", False),
        (None, False), (b"alt_1705180800_a3f2", False), ("alt_1705180800_" + "a" * 1000, False),
    ],
)  # fmt: skip
def test_readers_take_four_or_more_letters_and_digits(value: object, is_one: bool) -> None:
    assert is_trace_id(value) is is_one


def test_a_value_that_cannot_be_compared_is_no_layer() -> None:
    class Broken:
        def __hash__(self) -> int:
            raise RuntimeError

    with pytest.raises(ValueError, match="unknown layer: a value of type Broken"):
        layer_of(Broken())
