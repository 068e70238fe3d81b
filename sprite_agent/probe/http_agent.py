"""Asks an agent's bridge, or a v1 service, over HTTP (contract D)."""

import time
from email.utils import parsedate_to_datetime
from urllib.parse import quote

from sprite_agent.probe.http_client import Answer, HttpClient
from sprite_agent.probe.judge import SAMPLE_EVENTS, judge_clock, judge_refusal, judge_signature
from sprite_agent.probe.steps import Found, Steps, milliseconds, skip, well
from sprite_agent.probe.target import Target
from spritemesh import __version__
from spritemesh.errors import OpsError, kind_of
from spritemesh.names import AGENT_HEADER
from spritemesh.values import get, whole

# A Date is cut to seconds, and servers renew it once a second.
_DATE_SECONDS = 2.0


class HttpProbe:
    """The steps behind the connection, for one service."""

    def __init__(self, target: Target, steps: Steps, client: HttpClient) -> None:
        self._target = target
        self._steps = steps
        self._client = client
        self._refusal: OpsError | None = None
        self._answer = Answer("", 0, {}, b"")
        self._asked = (0.0, 0.0)
        self._asked_snapshot: Answer | None = None
        self._begun = 0.0
        self._lines = 0

    def run(self) -> None:
        """Take them all."""
        take = self._steps.take
        take("health", self._health, needs=("connect", "tls"))
        take("token", self._token, needs=("health",))
        take("signature", self._signature, needs=("token",))
        take("clock", self._clock, needs=("health",))
        take("version", self._version, needs=("health",))
        take("snapshot", self._snapshot, needs=("signature",))
        take("stream", self._events, needs=("snapshot",))

    def _health(self) -> Found:
        begun, sent = time.monotonic(), time.time()
        try:
            self._answer = answer = self._client.get("/healthz")
        except OpsError:
            self._client.refuse_plaintext(self._steps.left_of(begun))
            raise
        self._asked = sent, time.time()
        if answer.ok:
            if get(answer.document(), "ok") is not True:
                raise OpsError("service_response_invalid", f"{answer.what}: it does not say that it is well")
            return well(f"{answer.what}: {answer.status}, in {milliseconds(begun)}")
        self._refusal = answer.refusal(has_token=bool(self._target.token))
        if self._refusal.reason in {"agent_draining", "service_http_error", "unknown_path"}:
            raise self._refusal
        # It answers, and would not say how it is to whom it does not know.
        return well(f"{answer.what}: {answer.status}, in {milliseconds(begun)}")

    def _token(self) -> Found:
        if self._refusal is not None:
            return judge_refusal(self._target, self._refusal)
        return well("it was taken" if self._target.token else "none was given, and none is asked for")

    def _clock(self) -> Found:
        text = self._answer.headers.get("date", "")
        try:
            at = parsedate_to_datetime(text).timestamp()
        except (ValueError, OverflowError):
            return skip("the answer has no Date")
        return judge_clock(at, *self._asked, precision=_DATE_SECONDS)

    def _version(self) -> Found:
        version = self._answer.headers.get(AGENT_HEADER)
        if version is None:
            return well(
                "v1, of a service that is no agent of ours: replaced logs are not noticed, and keys not kept"
            )
        here = "the same here" if version == __version__ else f"here it is {__version__}"
        return well(f"v1; agent {version} ({here})")

    def _signature(self) -> Found:
        """A service may want none for its health: so the snapshot is asked for here."""
        if self._refusal is None and self._target.loop_id:
            self._begun = time.monotonic()
            query = f"loopId={quote(self._target.loop_id, safe='')}"
            self._asked_snapshot = self._client.get(f"/ops/snapshot?{query}", self._target.loop_id)
            if not self._asked_snapshot.ok:
                self._refusal = self._asked_snapshot.refusal()
        return judge_signature(self._target, self._refusal)

    def _snapshot(self) -> Found:
        if self._refusal is not None:
            raise self._refusal
        if self._asked_snapshot is None:
            return skip("over HTTP there is no list of loops: name one with --loop")
        document = self._asked_snapshot.document()
        status = get(document, "run", "status")
        if get(document, "envelopeType") != "loop_run_snapshot" or not isinstance(status, str):
            raise OpsError("service_response_invalid", f"the answer is no snapshot but {kind_of(document)}")
        self._lines = whole(get(document, "cursor", "eventLineCount")) or 0
        return well(f"loop {self._target.loop_id}: {status}, in {milliseconds(self._begun)}")

    def _events(self) -> Found:
        loop_id = self._target.loop_id
        if not loop_id:
            return skip("over HTTP there is no list of loops: name one with --loop")
        begun = time.monotonic()
        start = max(0, self._lines - SAMPLE_EVENTS)
        query = f"loopId={quote(loop_id, safe='')}&cursor={start}&maxEvents={SAMPLE_EVENTS}"
        document = self._client.get(f"/ops/events?{query}", loop_id).document()
        events = get(document, "events")
        if not isinstance(events, list):
            raise OpsError(
                "service_response_invalid", f"the answer has no list of events but {kind_of(events)}"
            )
        return well(f"loop {loop_id}: {len(events)} events after line {start}, in {milliseconds(begun)}")
