"""What a sink is sent: the bodies for webhook, Slack and PagerDuty (contract I.4)."""

from typing import NamedTuple

from manager.core.alert_catalog import Sink
from spritemesh.jsontext import JSON
from spritemesh.values import drop, first

_CHANNEL = "ops_manager_alert_dispatch"


class Alert(NamedTuple):
    """One escalation on its way. loop_id, trace_id: of the escalation, else of the dispatch.

    timestamp: of the escalation, "" when it has none. escalation: the whole row.
    """

    repo_path: str
    loop_id: str
    trace_id: str
    category: str
    severity: str
    timestamp: str
    escalation: JSON

    @property
    def text(self) -> str:
        """The alert in one line, for a chat."""
        return f"[ops-manager][{self.severity}] {self.category} loop={self.loop_id} trace={self.trace_id}"


def webhook_body(alert: Alert, sink: Sink, *, emitted_at: str) -> dict[str, JSON]:
    """Body for a webhook. emitted_at: timestamp of contract 0.3."""
    return {
        "schemaVersion": "v1",
        "emittedAt": emitted_at,
        "source": {
            "repoPath": alert.repo_path,
            "loopId": alert.loop_id,
            "channel": _CHANNEL,
            "traceId": alert.trace_id,
        },
        "event": {"category": alert.category, "severity": alert.severity},
        "sink": {"id": sink.id, "type": sink.type},
        "escalation": alert.escalation,
    }


def slack_body(alert: Alert, sink: Sink) -> dict[str, JSON]:
    """Body for a Slack webhook; its lines are parted by a real newline (L28)."""
    when = (
        f"Escalation timestamp: `{alert.timestamp}`"
        if alert.timestamp
        else "Escalation timestamp unavailable"
    )
    blocks: list[JSON] = [
        {
            "type": "section",
            "text": {"type": "mrkdwn", "text": f"*Ops Manager Alert*\nCategory: `{alert.text}`"},
        },
        {
            "type": "context",
            "elements": [
                {"type": "mrkdwn", "text": when},
                {"type": "mrkdwn", "text": f"Trace: `{alert.trace_id}`"},
            ],
        },
    ]
    return drop(
        {
            "text": alert.text,
            "channel": sink.config["channel"],
            "username": sink.config["username"],
            "icon_emoji": sink.config["iconEmoji"],
            "blocks": blocks,
        }
    )


def pagerduty_body(alert: Alert, sink: Sink, *, routing_key: str) -> dict[str, JSON]:
    """Body for PagerDuty's Events API, version 2. It holds a secret, the routing key."""
    config = sink.config
    return {
        "routing_key": routing_key,
        "event_action": "trigger",
        "dedup_key": f"{alert.loop_id}:{alert.category}:{alert.timestamp}",
        "payload": {
            "summary": f"ops-manager {alert.category} ({alert.severity}) loop={alert.loop_id}",
            "severity": alert.severity,
            "source": config["source"],
            "component": first(config["component"], "ops-manager"),
            "group": first(config["group"], "loop-run"),
            "class": first(config["class"], "escalation"),
            "custom_details": {"escalation": alert.escalation, "traceId": alert.trace_id},
        },
    }
