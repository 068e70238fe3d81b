"""POST /ops/control: a v1 request to the control desk, and its outcome as v1 tells it (contract D.3)."""

import asyncio
import logging
import os
import time

from starlette.responses import Response

from sprite_agent.control import Caller
from sprite_agent.control.process import NEVER_RAN
from sprite_agent.desk import ControlDesk
from sprite_agent.http.answers import json_answer
from sprite_agent.http.calls import Call
from sprite_agent.http.events import Run
from sprite_agent.http.replays import Answer, AnswerFiles, agrees, replay
from spritemesh import jsontext
from spritemesh.bridge.control import answer_document, facts_of_outcome, intent_row
from spritemesh.bridge.told import AMBIGUOUS, told_by_outcome
from spritemesh.control import Confirmation, ControlRequest, check_request, new_key
from spritemesh.errors import OpsError, kind_of
from spritemesh.ids import new_trace_id
from spritemesh.jsontext import JSON
from spritemesh.reasons import REASONS
from spritemesh.values import get, number_text
from superloop.ops.v1 import control_pb2 as pb

_log = logging.getLogger("sprite_agent")
_HTTP_STATUS = {0: 200, 2: 409}
# Of these the status `ambiguous` says all that is known.
_PLAIN = frozenset({"", "control_ambiguous", "runtime_output_truncated"})
# Of a body that cannot be read.
_NOTHING_ASKED = ControlRequest("", "", "")


class ControlRoute:
    """Answers control requests for one repository. Of one event loop."""

    def __init__(self, repo: str, desk: ControlDesk, run: Run) -> None:
        self._desk = desk
        self._run = run
        self._files = AnswerFiles(repo)
        # In the order of their coming: whoever joined a request finds the answer that its first got.
        self._turn = asyncio.Lock()

    async def answer(self, call: Call) -> Response:
        """Execute, join or replay. Raises OpsError for what is refused."""
        data = await call.body()
        caller = Caller(provenance=call.provenance)
        request = _NOTHING_ASKED
        try:
            request = read_request(data, call)
            is_keyed = bool(request.idempotency_key)
            shown_key = new_key(request.intent, time.time())
            if not is_keyed:
                request = request._replace(idempotency_key=shown_key)
            check_request(request)
            known = await self._known_to_file_only(request) if is_keyed else None
        except OpsError as error:
            await self._desk.note_refusal(request, caller, error)
            raise
        if known is not None:
            return json_answer(replay(known, request.trace_id))
        outcome = await self._desk.execute(request, caller._replace(shown_key=shown_key))
        if outcome.replayed:
            return json_answer(await self._again(outcome, request))
        document = _document(outcome, request.confirmation, shown_key)
        if is_keyed and outcome.reason not in NEVER_RAN:
            await self._store(request, document)
        return json_answer(document, _HTTP_STATUS.get(document["exitCode"], 500))

    async def _known_to_file_only(self, request: ControlRequest) -> Answer | None:
        """The answer that a v1 service recorded; None when the ledger has the key, or nobody has.

        Raises OpsError `idempotency_key_conflict` when it was the answer to another request.
        """
        key = request.idempotency_key
        known = await self._find(request)
        if known is None:
            return None
        try:
            await self._desk.invocation(key)
        except OpsError as error:
            if error.reason != "invocation_not_found":
                raise
        else:
            return None
        if not agrees(known, request):
            raise OpsError(
                "idempotency_key_conflict",
                "the idempotency key stands for another request, of which service-idempotency.json tells",
                field="idempotencyKey",
            )
        return known

    async def _again(self, outcome: pb.ControlOutcome, request: ControlRequest) -> Answer:
        """The answer of a replay: as it was first sent, else made anew from what was recorded."""
        known = await self._find(request)
        document = _document(outcome, request.confirmation, outcome.idempotency_key)
        if known is None or not agrees(known, request):
            return document
        if get(known, "result", "status") != get(document, "result", "status"):
            return document  # the ledger decides
        return replay(known, outcome.trace_id)

    async def _find(self, request: ControlRequest) -> Answer | None:
        async with self._turn:
            return await self._run(lambda: self._files.find(request.loop_id, request.idempotency_key))

    async def _store(self, request: ControlRequest, document: Answer) -> None:
        try:
            async with self._turn:
                await self._run(lambda: self._files.store(request.loop_id, request.idempotency_key, document))
        except (OpsError, OSError) as error:
            # The ledger has it: a replay is made from there.
            _log.warning("service-idempotency.json was not written: %s", error)


def read_request(data: bytes, call: Call) -> ControlRequest:
    """The request of a body, not yet checked; without an idempotency key it holds "".

    Raises OpsError `invalid_json`, `invalid_request` or `invalid_trace_id`.
    """
    members = _members(data)
    loop_id = _text(members, "loopId")
    if not loop_id:
        raise OpsError("invalid_request", "loopId is required", field="loopId")
    return ControlRequest(
        loop_id=loop_id,
        intent=_text(members, "intent"),
        idempotency_key=_text(members, "idempotencyKey") or _key_of_header(call),
        requested_by=_text(members, "by") or os.environ.get("USER") or "ops-service",
        note=_text(members, "note"),
        trace_id=_text(members, "traceId") or call.trace_id() or new_trace_id(),
        confirmation=Confirmation(skip=bool(members.get("noConfirm"))),
        expected_run_id=_text(members, "expectedRunId"),
        expected_approval_id=_text(members, "expectedApprovalId"),
        # v1 lets the runtime decide.
        even_if_nothing_pending=not members.get("requirePending"),
    )


def _key_of_header(call: Call) -> str:
    """Raises `invalid_request` for a key beside a signature, which does not cover it: on its way it could
    become another, and the next try of the request would be run as well."""
    key = call.header("x-idempotency-key")
    if key and call.provenance.key_id:
        raise OpsError(
            "invalid_request",
            "the key of a signed request belongs into its body: headers are not signed",
            field="idempotencyKey",
        )
    return key


def _members(data: bytes) -> dict[str, JSON]:
    try:
        document = jsontext.parse(data.decode()) if data else {}
    except (jsontext.JSONError, UnicodeDecodeError) as error:
        raise OpsError("invalid_json", f"the request body is no JSON: {error}") from error
    if not isinstance(document, dict):
        raise OpsError("invalid_request", f"the request body holds {kind_of(document)} instead of an object")
    return document


def _text(members: dict[str, JSON], name: str) -> str:
    """A member as a trimmed string, in v1's way: "" for one that is absent or counts as false; true becomes
    "True". Raises `invalid_request`."""
    value = members.get(name) or ""
    if value is True:
        value = str(value)
    elif isinstance(value, int | float):
        value = number_text(value)
    if not isinstance(value, str):
        raise OpsError("invalid_request", f"{name} must be a string, not {kind_of(value)}", field=name)
    return value.strip()


def _document(outcome: pb.ControlOutcome, confirmation: Confirmation, key: str) -> Answer:
    """The answer for an outcome. key: shown in its row."""
    told = told_by_outcome(outcome)
    facts = facts_of_outcome(outcome, confirmation)._replace(idempotency_key=key)
    # A command that failed tells the rest by its output, as with v1.
    says_more = told.status == AMBIGUOUS and outcome.reason not in _PLAIN
    stderr = f"{outcome.reason}: {REASONS[outcome.reason].meaning}" if says_more else ""
    return answer_document(intent_row(told, facts), told, stderr=stderr)
