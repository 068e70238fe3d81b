"""The catalog of alert sinks: who can be told, and who is told of what (contract I.1, I.2).

A catalog holds no secrets, only the names of environment variables that do. What is known of those here
is whether they are set.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from spritemesh.errors import OpsError, kind_of
from spritemesh.ids import has_control
from spritemesh.jsontext import JSON
from spritemesh.values import drop, get

SCHEMA_VERSION = "v1"

# Severity -> rank.
SEVERITIES = {"info": 1, "warning": 2, "critical": 3}

WEBHOOK = "webhook"
SLACK = "slack"
PAGERDUTY = "pagerduty_events"

_DEFAULT_TIMEOUT_SECONDS = 5
_TIMEOUT_SECONDS = (1, 120)
_VARIABLE = r"[A-Z_][A-Z0-9_]*\Z"
_HEADER_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z"

# Type -> members that name a variable, and whether a sink needs them.
_SECRETS: dict[str, dict[str, bool]] = {
    WEBHOOK: {"urlEnv": True, "authTokenEnv": False},
    SLACK: {"webhookUrlEnv": True},
    PAGERDUTY: {"routingKeyEnv": True},
}
# Type -> texts that a sink may have, and what stands for an absent one.
_TEXTS: dict[str, dict[str, str | None]] = {
    WEBHOOK: {},
    SLACK: {"channel": None, "username": None, "iconEmoji": None},
    PAGERDUTY: {"source": "superloop-ops-manager", "component": None, "group": None, "class": None},
}


class Sink(NamedTuple):
    """A place that can be told.

    timeout_seconds: 1 to 120, for a whole request. secrets: member -> name of its variable, None for an
    optional one that is not there. config: the rest that its requests need (contract I.2). endpoint: where
    PagerDuty is, when the catalog says so (L28).
    """

    id: str
    type: str
    enabled: bool
    timeout_seconds: int | float
    secrets: dict[str, str | None]
    config: dict[str, JSON]
    endpoint: str = ""

    def document(self) -> dict[str, JSON]:
        """What the resolver says of a selected sink."""
        return {
            "id": self.id,
            "type": self.type,
            "enabled": self.enabled,
            "timeoutSeconds": self.timeout_seconds,
            "secretRefs": dict(self.secrets),
            "config": self.config | ({"endpoint": self.endpoint} if self.endpoint else {}),
        }


class Catalog(NamedTuple):
    """A checked catalog. source: its path as given. routing: as configured."""

    source: str
    default_min_severity: str
    sinks: dict[str, Sink]
    routing: dict[str, JSON]


class Resolution(NamedTuple):
    """Who is told of one event.

    document: as the resolver prints it, its lists as configured. sinks: those to send to, in order, each
    once.
    """

    document: dict[str, JSON]
    severity: str
    should_dispatch: bool
    sinks: tuple[Sink, ...]


def check_catalog(catalog: JSON, source: str) -> Catalog:
    """`catalog` as it is used. Members that nobody knows are left alone.

    Raises OpsError `alert_catalog_invalid`, which names file and member.
    """
    check = _Check(source)
    check.has_kind("the catalog", catalog, "object")
    if get(catalog, "schemaVersion") != SCHEMA_VERSION:
        raise check.fault("schemaVersion", f"must be '{SCHEMA_VERSION}'")
    check.is_severity("defaultMinSeverity", get(catalog, "defaultMinSeverity"))
    described = check.has_kind("sinks", get(catalog, "sinks"), "object")
    if not described:
        raise check.fault("sinks", "must hold at least one sink")
    routing = check.has_kind("routing", get(catalog, "routing"), "object")
    sinks = {name: _sink(check, name, sink) for name, sink in described.items()}
    _check_routing(check, routing, sinks)
    return Catalog(source, catalog["defaultMinSeverity"], sinks, routing)


def secret_in(environment: Mapping[str, str], name: str | None) -> str:
    """The value of a variable, without white space around it; "" where that leaves nothing."""
    return environment.get(name or "", "").strip()


def variables(sinks: Iterable[Sink]) -> list[str]:
    """Names of the secret variables of `sinks`, sorted."""
    return sorted({name for sink in sinks for name in sink.secrets.values() if name})


def missing_variables(catalog: Catalog, present: Mapping[str, str]) -> list[str]:
    """The secret variables of enabled sinks that are unset, empty or nothing but white space, sorted."""
    enabled = (sink for sink in catalog.sinks.values() if sink.enabled)
    return [name for name in variables(enabled) if not secret_in(present, name)]


def overview(catalog: Catalog, present: Mapping[str, str], *, env_check: bool) -> dict[str, JSON]:
    """The resolver's document without a category. present: the environment."""
    shown = ("id", "enabled", "type", "timeoutSeconds", "secretRefs")
    sinks = [{name: sink.document()[name] for name in shown} for sink in catalog.sinks.values()]
    return {
        "schemaVersion": SCHEMA_VERSION,
        "sourceFile": catalog.source,
        "defaultMinSeverity": catalog.default_min_severity,
        "sinks": sinks,
        "enabledSinkCount": sum(sink.enabled for sink in catalog.sinks.values()),
        "routing": catalog.routing,
        **_environment(catalog, present, env_check=env_check),
    }


def resolve(
    catalog: Catalog, category: str, severity: str, present: Mapping[str, str], *, env_check: bool = True
) -> Resolution:
    """Who is told of an event of `category`.

    severity: of the event; "" for the one that the catalog gives its category. present: the environment.
    env_check: is only told, not done. A route that is switched off counts before the default sinks do:
    nobody is told (L19); of two routes for one category the first that is on counts.
    Raises OpsError `invalid_request` for a severity that there is not.
    """
    if severity and severity not in SEVERITIES:
        raise OpsError(
            "invalid_request", f"severity must be one of {', '.join(SEVERITIES)}, not {severity!r}"
        )
    route = _route(catalog, category)
    names = get(route, "sinks") or catalog.routing["defaultSinks"]
    selected = [catalog.sinks[name] for name in names]
    least = get(route, "minSeverity") or catalog.default_min_severity
    mapped = catalog.routing["categorySeverity"].get(category)
    event_severity = severity or mapped or least
    should = SEVERITIES[event_severity] >= SEVERITIES[least]
    told = should and get(route, "enabled") is not False
    sinks = [sink for sink in selected if sink.enabled] if told else []
    document = drop(
        {
            "schemaVersion": SCHEMA_VERSION,
            "sourceFile": catalog.source,
            "category": category,
            "eventSeverity": event_severity,
            "categoryMappedSeverity": mapped,
            "minSeverity": least,
            "shouldDispatch": should,
            "route": route,
            "selectedSinks": [sink.document() for sink in selected],
            "dispatchableSinks": [sink.document() for sink in sinks],
            **_environment(catalog, present, env_check=env_check),
        }
    )
    once = {sink.id: sink for sink in sinks}
    return Resolution(document, event_severity, should, tuple(once.values()))


def _route(catalog: Catalog, category: str) -> JSON:
    """The route for a category: the first that is on, else the first, else None."""
    routes = [route for route in get(catalog.routing, "routes") or () if route["category"] == category]
    on = (route for route in routes if get(route, "enabled") is not False)
    return next(on, routes[0] if routes else None)


def _environment(catalog: Catalog, present: Mapping[str, str], *, env_check: bool) -> dict[str, JSON]:
    """What the resolver says of the environment: never a value."""
    names = variables(catalog.sinks.values())
    return {
        "envStatus": {name: {"present": bool(secret_in(present, name))} for name in names},
        "validation": {"envCheckEnabled": env_check},
    }


# --- checks -----------------------------------------------------------------------------------------


class _Check(NamedTuple):
    """Faults of one file."""

    source: str

    def fault(self, member: str, problem: str) -> OpsError:
        return OpsError("alert_catalog_invalid", f"{self.source}: {member} {problem}")

    def has_kind(self, member: str, value: JSON, kind: str) -> JSON:
        if kind_of(value) != kind:
            article = "an" if kind[0] in "ao" else "a"
            raise self.fault(member, f"must be {article} {kind}, found {kind_of(value)}")
        return value

    def has_optional(self, member: str, value: JSON, kind: str) -> JSON:
        return value if value is None else self.has_kind(member, value, kind)

    def is_severity(self, member: str, value: JSON) -> None:
        if not isinstance(value, str) or value not in SEVERITIES:
            raise self.fault(member, f"must be one of {', '.join(SEVERITIES)}")

    def are_sinks(self, member: str, value: JSON, sinks: Mapping[str, Sink]) -> None:
        for number, name in enumerate(self.has_kind(member, value, "array")):
            if not isinstance(name, str) or name not in sinks:
                raise self.fault(f"{member}[{number}]", f"must name a sink, found {name!r}")


def _sink(check: _Check, name: str, sink: JSON) -> Sink:
    where = f"sinks.{name}"
    check.has_kind(where, sink, "object")
    check.has_kind(f"{where}.enabled", get(sink, "enabled"), "boolean")
    type_ = get(sink, "type")
    if not isinstance(type_, str) or type_ not in _SECRETS:
        raise check.fault(f"{where}.type", f"must be one of {', '.join(_SECRETS)}")
    timeout = sink.get("timeoutSeconds")
    timeout = _DEFAULT_TIMEOUT_SECONDS if timeout is None else timeout
    check.has_kind(f"{where}.timeoutSeconds", timeout, "number")
    low, high = _TIMEOUT_SECONDS
    if not low <= timeout <= high:
        raise check.fault(f"{where}.timeoutSeconds", f"must be from {low} to {high}")
    secrets: dict[str, str | None] = {}
    for member, needed in _SECRETS[type_].items():
        secrets[member] = _variable(check, f"{where}.{member}", sink.get(member), needed=needed)
    config: dict[str, JSON] = {}
    if type_ == WEBHOOK:
        config["headers"] = _headers(check, f"{where}.headers", sink.get("headers"))
    for member, default in _TEXTS[type_].items():
        text = check.has_optional(f"{where}.{member}", sink.get(member), "string")
        config[member] = default if text is None else text
    endpoint = _endpoint(check, f"{where}.endpoint", sink.get("endpoint")) if type_ == PAGERDUTY else ""
    return Sink(name, type_, sink["enabled"], timeout, secrets, config, endpoint)


def _variable(check: _Check, member: str, value: JSON, *, needed: bool) -> str | None:
    if value is None and not needed:
        return None
    if not isinstance(value, str) or not re.match(_VARIABLE, value):
        raise check.fault(member, "must name a variable: A to Z, digits and _, no digit in front")
    return value


def _headers(check: _Check, member: str, value: JSON) -> dict[str, str]:
    headers: dict[str, str] = check.has_optional(member, value, "object") or {}
    for name, text in headers.items():
        if not re.match(_HEADER_NAME, name):
            raise check.fault(member, f"holds {name!r}, which is no name of a header")
        check.has_kind(f"{member}.{name}", text, "string")
        if has_control(text):
            raise check.fault(f"{member}.{name}", "holds a control character")
    return headers


def _endpoint(check: _Check, member: str, value: JSON) -> str:
    endpoint: str = check.has_optional(member, value, "string") or ""
    if endpoint and not endpoint.startswith(("https://", "http://")):
        raise check.fault(member, "must be an http or https URL")
    return endpoint


def _check_routing(check: _Check, routing: dict[str, JSON], sinks: Mapping[str, Sink]) -> None:
    check.are_sinks("routing.defaultSinks", routing.get("defaultSinks"), sinks)
    mapped = check.has_kind("routing.categorySeverity", routing.get("categorySeverity"), "object")
    for category, severity in mapped.items():
        check.is_severity(f"routing.categorySeverity.{category}", severity)
    routes = check.has_optional("routing.routes", routing.get("routes"), "array") or ()
    for number, route in enumerate(routes):
        where = f"routing.routes[{number}]"
        check.has_kind(where, route, "object")
        if not check.has_kind(f"{where}.category", get(route, "category"), "string"):
            raise check.fault(f"{where}.category", "must not be empty")
        if get(route, "sinks") is not None:
            check.are_sinks(f"{where}.sinks", route["sinks"], sinks)
        if get(route, "minSeverity") is not None:
            check.is_severity(f"{where}.minSeverity", route["minSeverity"])
        check.has_optional(f"{where}.enabled", get(route, "enabled"), "boolean")
