"""Who may call what: every method of the contract is allowed by one rule, and by the right one."""

from typing import Any, NamedTuple

from sprite_agent.services.reflection import V1_NAME, V1ALPHA_NAME
from superloop.ops.v1 import control_pb2, manager_pb2, sprite_pb2, telemetry_pb2
from tests.harness.deploy import DEPLOY, yaml_documents

MANAGER = "cluster.local/ns/spritemesh/sa/ops-manager"
CONTROL = "cluster.local/ns/spritemesh/sa/ops-control"
PROMETHEUS = "cluster.local/ns/monitoring/sa/prometheus"
HEALTH = "/grpc.health.v1.Health/Check"
REFLECTION = (f"/{V1_NAME}/ServerReflectionInfo", f"/{V1ALPHA_NAME}/ServerReflectionInfo")
AGENT_PORT, MANAGER_PORT = "50551", "50561"

OBJECTS = yaml_documents(DEPLOY / "kubernetes/istio/authorization.yaml")
POLICIES = {
    item["metadata"]["name"]: item["spec"] for item in OBJECTS if item["kind"] == "AuthorizationPolicy"
}


class Call(NamedTuple):
    """What Istio sees of a call. app: the label of the called pod."""

    app: str
    port: str
    path: str
    verb: str = "POST"


def methods(file: Any) -> set[str]:
    """Paths of all methods of a file of the contract."""
    return {
        f"/{service.full_name}/{method.name}"
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }


def fits(pattern: str, path: str) -> bool:
    """As Istio compares paths: whole, or up to a star at the end."""
    return path.startswith(pattern[:-1]) if pattern.endswith("*") else path == pattern


def allowing(call: Call) -> list[frozenset[str]]:
    """The identities of each rule that allows a call."""
    labels = {"app.kubernetes.io/name": call.app, "app.kubernetes.io/part-of": "spritemesh"}
    found = []
    for spec in POLICIES.values():
        selected = spec.get("selector", {}).get("matchLabels", {}).items() <= labels.items()
        for rule in spec.get("rules", ()) if selected else ():
            (origin,), (target,) = rule["from"], rule["to"]
            operation = target["operation"]
            if (
                call.port in operation["ports"]
                and call.verb in operation["methods"]
                and any(fits(pattern, call.path) for pattern in operation["paths"])
            ):
                found.append(frozenset(origin["source"]["principals"]))
    return found


def test_nothing_is_allowed_that_no_rule_names() -> None:
    assert POLICIES["nothing-else"] == {}
    assert all(spec.get("action", "ALLOW") == "ALLOW" for spec in POLICIES.values())
    (peers,) = (item for item in OBJECTS if item["kind"] == "PeerAuthentication")
    assert peers["spec"] == {"mtls": {"mode": "STRICT"}}


def test_every_read_of_a_sprite_is_allowed_once_to_those_who_read() -> None:
    reads = methods(sprite_pb2) | methods(telemetry_pb2)
    reads |= {"/superloop.ops.v1.ControlService/GetInvocation", HEALTH, *REFLECTION}
    for path in reads:
        assert allowing(Call("sprite", AGENT_PORT, path)) == [frozenset({MANAGER, CONTROL})], path


def test_every_control_method_is_allowed_once_to_those_who_step_in() -> None:
    control = methods(control_pb2) - {"/superloop.ops.v1.ControlService/GetInvocation"}
    assert len(control) == 3
    for path in control:
        assert allowing(Call("sprite", AGENT_PORT, path)) == [frozenset({CONTROL})], path


def test_every_read_of_the_manager_is_allowed_once() -> None:
    for path in methods(manager_pb2) | {HEALTH, *REFLECTION}:
        assert allowing(Call("ops-manager", MANAGER_PORT, path)) == [frozenset({CONTROL})], path


def test_metrics_are_for_prometheus() -> None:
    for app, port in (("sprite", "9551"), ("ops-manager", "9561")):
        assert allowing(Call(app, port, "/metrics", "GET")) == [frozenset({PROMETHEUS})]


def test_rules_name_no_method_that_does_not_exist() -> None:
    known = {HEALTH, *REFLECTION, "/metrics"}
    known = known.union(*map(methods, (sprite_pb2, telemetry_pb2, control_pb2, manager_pb2)))
    for spec in POLICIES.values():
        for rule in spec.get("rules", ()):
            for pattern in rule["to"][0]["operation"]["paths"]:
                assert any(fits(pattern, path) for path in known), pattern


def test_one_port_does_not_open_the_other() -> None:
    for path in methods(sprite_pb2) | methods(control_pb2):
        assert allowing(Call("sprite", "9551", path)) == []
        assert allowing(Call("ops-manager", MANAGER_PORT, path)) == []
