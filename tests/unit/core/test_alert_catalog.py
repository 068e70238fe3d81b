"""The catalog of alert sinks: what is refused, and who is told (contract I.1, I.2, L19)."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manager import catalogs
from manager.core.alert_catalog import SEVERITIES, check_catalog, missing_variables, overview, resolve
from spritemesh.errors import OpsError
from tests.unit.bridge.strategies import THOROUGH

HOOK = {"enabled": True, "type": "webhook", "urlEnv": "HOOK_URL"}
CHAT = {"enabled": True, "type": "slack", "webhookUrlEnv": "CHAT_URL"}
PAGER = {"enabled": True, "type": "pagerduty_events", "routingKeyEnv": "PAGER_KEY"}


def catalog(*routes: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "schemaVersion": "v1",
        "defaultMinSeverity": "warning",
        "sinks": {"hook": HOOK, "chat": CHAT, "pager": PAGER},
        "routing": {
            "defaultSinks": ["hook"],
            "categorySeverity": {"bad": "critical"},
            "routes": list(routes),
        },
        **changes,
    }


def with_sink(sink: dict[str, Any]) -> dict[str, Any]:
    return catalog(sinks={"hook": HOOK, "s": sink})


def with_routing(**changes: Any) -> dict[str, Any]:
    made = catalog()
    return made | {"routing": made["routing"] | changes}


@pytest.mark.parametrize(
    ("broken", "member"),
    [
        (catalog(schemaVersion="v2"), "schemaVersion"),
        (catalog(defaultMinSeverity="loud"), "defaultMinSeverity"),
        (catalog(defaultMinSeverity=["info"]), "defaultMinSeverity"),
        (catalog(sinks={}), "sinks"),
        (catalog(sinks=[]), "sinks"),
        (catalog(routing=None), "routing"),
        (with_sink(HOOK | {"enabled": "yes"}), "sinks.s.enabled"),
        (with_sink(HOOK | {"type": "pigeon"}), "sinks.s.type"),
        (with_sink(HOOK | {"type": []}), "sinks.s.type"),
        (with_sink(HOOK | {"timeoutSeconds": 0}), "sinks.s.timeoutSeconds"),
        (with_sink(HOOK | {"timeoutSeconds": 121}), "sinks.s.timeoutSeconds"),
        (with_sink(HOOK | {"timeoutSeconds": True}), "sinks.s.timeoutSeconds"),
        (with_sink(HOOK | {"urlEnv": "lower"}), "sinks.s.urlEnv"),
        (with_sink(HOOK | {"urlEnv": "HOOK_URL\n"}), "sinks.s.urlEnv"),
        (with_sink(HOOK | {"authTokenEnv": ""}), "sinks.s.authTokenEnv"),
        (with_sink(HOOK | {"headers": {"X": 1}}), "sinks.s.headers.X"),
        (with_sink(HOOK | {"headers": {"X Y": "1"}}), "sinks.s.headers"),
        (with_sink(HOOK | {"headers": {"X": "a\r\nY: b"}}), "sinks.s.headers.X"),
        (with_sink(CHAT | {"channel": 1}), "sinks.s.channel"),
        (with_sink(PAGER | {"endpoint": "ftp://there"}), "sinks.s.endpoint"),
        (with_sink({"enabled": True, "type": "pagerduty_events"}), "sinks.s.routingKeyEnv"),
        (with_routing(defaultSinks=["nobody"]), "routing.defaultSinks[0]"),
        (with_routing(defaultSinks=None), "routing.defaultSinks"),
        (with_routing(categorySeverity=None), "routing.categorySeverity"),
        (with_routing(categorySeverity={"x": "loud"}), "routing.categorySeverity.x"),
        (catalog({"category": "c", "sinks": ["nobody"]}), "routing.routes[0].sinks[0]"),
        (catalog({"category": ""}), "routing.routes[0].category"),
        (catalog({"category": "c", "minSeverity": "loud"}), "routing.routes[0].minSeverity"),
        (catalog({"category": "c", "enabled": 0}), "routing.routes[0].enabled"),
        (catalog("c"), "routing.routes[0]"),  # type: ignore[arg-type]
        ([], "the catalog"),
    ],
)
def test_fault_is_refused_with_file_and_member(broken: Any, member: str) -> None:
    with pytest.raises(OpsError) as caught:
        check_catalog(broken, "/etc/sinks.json")
    assert caught.value.reason == "alert_catalog_invalid"
    assert caught.value.message.startswith(f"/etc/sinks.json: {member} ")


def test_built_in_catalog_is_valid_and_tells_nobody() -> None:
    built_in = check_catalog(json.loads(Path(catalogs.ALERT_SINKS).read_text()), catalogs.ALERT_SINKS)
    assert overview(built_in, {}, env_check=True)["enabledSinkCount"] == 0
    assert missing_variables(built_in, {}) == []
    assert resolve(built_in, "health_critical", "", {}).sinks == ()


def test_routes_may_be_absent() -> None:
    made = catalog()
    del made["routing"]["routes"]
    assert [sink.id for sink in resolve(check_catalog(made, "f"), "any", "", {}).sinks] == ["hook"]


@pytest.mark.parametrize(
    ("routes", "told"),
    [
        ([{"category": "bad", "sinks": ["chat"]}], ["chat"]),
        ([{"category": "bad", "sinks": []}], ["hook"]),
        ([{"category": "other", "sinks": ["chat"]}], ["hook"]),
        # L19: a route that is switched off tells nobody, not even the default sinks.
        ([{"category": "bad", "sinks": ["chat"], "enabled": False}], []),
        ([{"category": "bad", "sinks": ["chat"], "enabled": True}], ["chat"]),
        ([{"category": "bad", "sinks": ["chat"], "enabled": False}, {"category": "bad", "sinks": ["pager"]}],
         ["pager"]),
    ],
)  # fmt: skip
def test_route_chooses_the_sinks(routes: list[dict[str, Any]], told: list[str]) -> None:
    found = resolve(check_catalog(catalog(*routes), "f"), "bad", "", {})
    assert [sink.id for sink in found.sinks] == told
    assert [sink["id"] for sink in found.document["dispatchableSinks"]] == told
    assert found.should_dispatch


def test_severity_of_the_event_comes_from_the_flag_then_the_category_then_the_route() -> None:
    checked = check_catalog(catalog({"category": "mild", "minSeverity": "info"}), "f")
    assert resolve(checked, "bad", "info", {}).severity == "info"
    assert resolve(checked, "bad", "", {}).severity == "critical"
    assert resolve(checked, "mild", "", {}).severity == "info"
    assert resolve(checked, "else", "", {}).severity == "warning"
    with pytest.raises(OpsError, match="loud"):
        resolve(checked, "bad", "loud", {})


def test_missing_variables_are_those_of_enabled_sinks() -> None:
    checked = check_catalog(catalog(sinks={"hook": HOOK, "off": CHAT | {"enabled": False}}), "f")
    assert missing_variables(checked, {"HOOK_URL": ""}) == ["HOOK_URL"]
    assert missing_variables(checked, {"HOOK_URL": "u"}) == []


def test_documents_hold_no_value_of_a_variable() -> None:
    checked = check_catalog(catalog(), "f")
    values = dict.fromkeys(("HOOK_URL", "CHAT_URL", "PAGER_KEY"), "the-secret")
    shown = [overview(checked, values, env_check=True), resolve(checked, "bad", "", values).document]
    assert "the-secret" not in json.dumps(shown)
    assert shown[0]["envStatus"] == {name: {"present": True} for name in sorted(values)}


def test_endpoint_shows_only_where_the_catalog_has_one() -> None:
    checked = check_catalog(catalog(sinks={"hook": HOOK, "p": PAGER | {"endpoint": "http://pager"}}), "f")
    assert checked.sinks["p"].document()["config"]["endpoint"] == "http://pager"
    assert "endpoint" not in check_catalog(catalog(), "f").sinks["pager"].document()["config"]


# --- properties -------------------------------------------------------------------------------------

_severities = st.sampled_from(list(SEVERITIES))
_categories = st.sampled_from(["a", "b", "c"])
_names = st.sampled_from(["hook", "chat", "pager"])
_routes = st.fixed_dictionaries(
    {"category": _categories},
    optional={"sinks": st.lists(_names, unique=True), "minSeverity": _severities, "enabled": st.booleans()},
)


@st.composite
def _catalogs(draw: st.DrawFn) -> dict[str, Any]:
    sinks = {"hook": HOOK, "chat": CHAT, "pager": PAGER}
    return {
        "schemaVersion": "v1",
        "defaultMinSeverity": draw(_severities),
        "sinks": {name: sink | {"enabled": draw(st.booleans())} for name, sink in sinks.items()},
        "routing": {
            "defaultSinks": draw(st.lists(_names, unique=True)),
            "categorySeverity": draw(st.dictionaries(_categories, _severities)),
            "routes": draw(st.lists(_routes, max_size=4)),
        },
    }


@THOROUGH
@given(_catalogs(), _categories, st.one_of(st.just(""), _severities))
def test_nobody_is_told_who_is_disabled_unselected_or_not_concerned(
    document: dict[str, Any], category: str, severity: str
) -> None:
    found = resolve(check_catalog(document, "f"), category, severity, {})
    selected = [sink["id"] for sink in found.document["selectedSinks"]]
    assert all(sink.enabled and sink.id in selected for sink in found.sinks)
    least = found.document["minSeverity"]
    assert found.should_dispatch == (SEVERITIES[found.severity] >= SEVERITIES[least])
    assert found.should_dispatch or not found.sinks
    route = found.document.get("route")
    assert route is None or route["category"] == category


@THOROUGH
@given(_catalogs(), _categories)
def test_worse_events_are_told_to_at_least_as_many(document: dict[str, Any], category: str) -> None:
    checked = check_catalog(document, "f")
    told = [len(resolve(checked, category, severity, {}).sinks) for severity in SEVERITIES]
    assert told == sorted(told)
