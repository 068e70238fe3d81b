"""The bodies that sinks get (contract I.4)."""

from manager.core.alert_catalog import Sink
from manager.core.alert_payloads import Alert, pagerduty_body, slack_body, webhook_body

ALERT = Alert("/repo", "alpha", "t-1", "health_critical", "critical", "2024-03-11T09:00:00Z", {"n": 1})


def sink(type_: str, **config: str | None) -> Sink:
    return Sink("s", type_, True, 5, {}, dict(config))


def test_webhook_gets_the_whole_escalation() -> None:
    assert webhook_body(ALERT, sink("webhook"), emitted_at="2024-03-11T09:00:01Z") == {
        "schemaVersion": "v1",
        "emittedAt": "2024-03-11T09:00:01Z",
        "source": {
            "repoPath": "/repo",
            "loopId": "alpha",
            "channel": "ops_manager_alert_dispatch",
            "traceId": "t-1",
        },
        "event": {"category": "health_critical", "severity": "critical"},
        "sink": {"id": "s", "type": "webhook"},
        "escalation": {"n": 1},
    }


def test_slack_text_has_a_real_newline_and_no_empty_members() -> None:
    body = slack_body(ALERT, sink("slack", channel="#c", username=None, iconEmoji=None))
    line = "[ops-manager][critical] health_critical loop=alpha trace=t-1"
    assert list(body) == ["text", "channel", "blocks"]
    assert body["text"] == line
    assert body["blocks"][0]["text"]["text"] == f"*Ops Manager Alert*\nCategory: `{line}`"
    assert [element["text"] for element in body["blocks"][1]["elements"]] == [
        "Escalation timestamp: `2024-03-11T09:00:00Z`",
        "Trace: `t-1`",
    ]


def test_slack_says_when_there_is_no_time() -> None:
    body = slack_body(
        ALERT._replace(timestamp=""), sink("slack", channel=None, username=None, iconEmoji=None)
    )
    assert body["blocks"][1]["elements"][0]["text"] == "Escalation timestamp unavailable"


def test_pagerduty_gets_defaults_for_what_the_catalog_leaves_out() -> None:
    config = {"source": "me", "component": None, "group": "g", "class": None}
    assert pagerduty_body(ALERT, sink("pagerduty_events", **config), routing_key="key") == {
        "routing_key": "key",
        "event_action": "trigger",
        "dedup_key": "alpha:health_critical:2024-03-11T09:00:00Z",
        "payload": {
            "summary": "ops-manager health_critical (critical) loop=alpha",
            "severity": "critical",
            "source": "me",
            "component": "ops-manager",
            "group": "g",
            "class": "escalation",
            "custom_details": {"escalation": {"n": 1}, "traceId": "t-1"},
        },
    }


def test_pagerduty_gets_an_empty_text_of_the_catalog_as_it_is() -> None:
    config = {"source": "me", "component": "", "group": "", "class": ""}
    payload = pagerduty_body(ALERT, sink("pagerduty_events", **config), routing_key="key")["payload"]
    assert (payload["component"], payload["group"], payload["class"]) == ("", "", "")
