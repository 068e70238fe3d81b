"""Requests that the bridge's own OpenAPI description leads to, and answers that must be as it says.

schemathesis makes requests of the description, right ones and wrong ones, and compares each answer with it:
status, content type, headers, body. An input is what Hypothesis makes its choices from, so that the corpus
holds choices and a failure can be replayed.
"""

import random
import zlib
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from sprite_agent.http.description import description
from tests.fuzz.driver import Run, Target
from tests.fuzz.fixtures import TOKEN, fuzzed_agent

_CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
_LOOPS = ("alpha", "bad", "pending", "empty")
_SECONDS = 15.0
_CHOICES_BYTES = 4096
_SETTINGS = settings(
    database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
)


class _Described:
    """Makes requests of the description to an agent."""

    def __init__(self, url: str) -> None:
        schema = schemathesis.openapi.from_dict(description())
        modes = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
        operations = [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]
        self._url = url
        self._session = requests.Session()
        self._seen: list[Hashable] = []
        cases = st.one_of(
            *(operation.as_strategy(generation_mode=mode) for operation in operations for mode in modes)
        )
        self._ask = _SETTINGS(given(cases, st.sampled_from((*_LOOPS, "")), st.integers(0, 9))(self._one))

    def run(self, data: bytes) -> Iterator[Hashable]:
        self._seen.clear()
        # Short inputs would be used up before a request is whole.
        rest = random.Random(zlib.crc32(data)).randbytes(max(0, _CHOICES_BYTES - len(data)))
        self._ask.hypothesis.fuzz_one_input(data + rest)  # type: ignore[attr-defined]
        yield from self._seen

    def _one(self, case: Any, loop_id: str, known: int) -> None:
        # Names that nobody has would find every door closed.
        if loop_id and isinstance(case.query, dict) and "loopId" in case.query:
            case.query["loopId"] = loop_id
        if loop_id and isinstance(case.body, dict):
            case.body["loopId"] = loop_id
        headers = {"X-Ops-Token": TOKEN if known else "wrong"}
        answer = case.call(base_url=self._url, session=self._session, headers=headers, timeout=_SECONDS)
        try:
            case.validate_response(answer, checks=_CHECKS)
        except FailureGroup as group:  # none of Exception's kind
            told = "\n".join(map(str, group.exceptions))
            raise AssertionError(f"{case.method} {answer.url}: {told}") from None
        self._seen.append((case.method, case.path, answer.status_code))


@contextmanager
def _opened(directory: Path) -> Iterator[Run]:
    with fuzzed_agent(directory) as fuzzed:
        described = _Described(fuzzed.agent.http_url)

        def run(data: bytes) -> Iterator[Hashable]:
            yield from described.run(data)
            fuzzed.check()

        yield run


TARGET = Target("described", _opened, in_process=False)
