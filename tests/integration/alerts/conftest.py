"""A loop with escalations and a catalog of sinks, dispatched with a clock of the test's own."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from manager.alerts.dispatch import dispatch
from manager.alerts.progress import Order
from manager.store import loop_files
from spritemesh.jsontext import JSON
from tests.harness import secrets
from tests.harness.receiver import Answer, Receiver, Request, receiving

TRACE_ID = "4bf92f35-77b3-4da6-a3ce-929d0e0e4736"


class Desk:
    """One loop's escalations and alerts. now: epoch seconds of the next dispatch. environment: secrets."""

    def __init__(self, root: Path, stack: ExitStack) -> None:
        self.root = root
        self.now = 1_700_000_000.0
        self.paths = loop_files(str(root), "alpha")
        self.environment: dict[str, str] = {}
        self.catalog = root / "sinks.json"
        self._stack = stack
        self._sinks: dict[str, dict[str, Any]] = {}
        Path(self.paths.ops).mkdir(parents=True)

    def sink(self, name: str, *responses: Answer, type_: str = "webhook", **members: JSON) -> Receiver:
        """A sink that answers so. Its address or key is in the environment."""
        receiver = self._stack.enter_context(receiving(*responses))
        upper = name.upper()
        secret = {"webhook": "urlEnv", "slack": "webhookUrlEnv", "pagerduty_events": "routingKeyEnv"}[type_]
        path = {"webhook": secrets.WEBHOOK_PATH, "slack": secrets.SLACK_PATH}.get(type_)
        self.environment[f"{upper}_SECRET"] = f"{receiver.url}/{path}"
        if type_ == "pagerduty_events":
            self.environment[f"{upper}_SECRET"] = secrets.PAGERDUTY_KEY
            members = {"endpoint": f"{receiver.url}/v2/enqueue", **members}
        self.put_sink(name, {"enabled": True, "type": type_, secret: f"{upper}_SECRET", **members})
        return receiver

    def put_sink(self, name: str, sink: dict[str, Any]) -> None:
        self._sinks[name] = sink
        self.write_catalog()

    def write_catalog(self, **routing: JSON) -> None:
        defaults = {"defaultSinks": list(self._sinks), "categorySeverity": {}, "routes": []}
        document = {
            "schemaVersion": "v1",
            "defaultMinSeverity": "warning",
            "sinks": self._sinks,
            "routing": defaults | routing,
        }
        self.catalog.write_text(json.dumps(document))

    def escalate(self, *categories: str, **members: JSON) -> None:
        """Append an escalation of each category."""
        with open(self.paths.escalations, "a", encoding="utf-8") as file:
            for category in categories:
                row = {"timestamp": "2024-03-11T09:00:00Z", "loopId": "alpha", "traceId": TRACE_ID}
                file.write(json.dumps(row | {"category": category} | members) + "\n")

    def dispatch(self, **changes: Any) -> dict[str, Any]:
        """One pass; returns the state document."""
        return self.dispatch_with(lambda: self.now, **changes)

    def dispatch_with(self, clock: Callable[[], float], **changes: Any) -> dict[str, Any]:
        """One pass with a clock that may do more than tell the time."""
        order = Order(str(self.root), "alpha", "td", str(self.catalog))._replace(**changes)
        return dispatch(self.paths, order, environment=self.environment, clock=clock)

    def dispatch_in(self, seconds: float) -> dict[str, Any]:
        """One pass that begins nothing after so many seconds."""
        order = Order(str(self.root), "alpha", "td", str(self.catalog))
        return dispatch(
            self.paths, order, environment=self.environment, clock=lambda: self.now, seconds=seconds
        )

    def later(self, seconds: float) -> dict[str, Any]:
        """One pass after some time."""
        self.now += seconds
        return self.dispatch()

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The alert telemetry."""
        path = Path(self.paths.alert_telemetry)
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def results(self) -> list[tuple[str, str | None, int | None]]:
        """Status, reason and number of the retry of each row."""
        return [(row["status"], row.get("reasonCode"), row.get("retryAttempt")) for row in self.rows]

    @property
    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(Path(self.paths.alert_state).read_text())
        return found

    @property
    def waiting(self) -> list[dict[str, str]]:
        """Of each escalation in the queue, which sinks wait and why; none without a queue file."""
        path = Path(self.paths.alert_retries)
        return (
            [entry["waiting"] for entry in json.loads(path.read_text())["entries"]] if path.exists() else []
        )


def categories(requests: list[Request]) -> list[str]:
    """What webhooks were told of."""
    return [json.loads(request.body)["event"]["category"] for request in requests]


def outcome(row: Mapping[str, Any]) -> dict[str, Any]:
    """The first sink of a row."""
    found: dict[str, Any] = row["sinks"][0]
    return found


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    root = tmp_path / "repo"
    with ExitStack() as stack:
        yield Desk(root, stack)
