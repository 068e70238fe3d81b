"""The manifests of deploy/kubernetes fit together, and fit the programs."""

import shutil
import subprocess
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

import pytest

from manager.fleet.registry import check, read_registry
from sprite_agent.demo.cli import main as demo
from superloop.ops.v1 import control_pb2, manager_pb2, sprite_pb2
from tests.harness.deploy import DEPLOY, parse, yaml_documents

FOLDER = DEPLOY / "kubernetes"
KUBECTL = shutil.which("kubectl")
SERVED = {
    service.full_name
    for file in (sprite_pb2, control_pb2, manager_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
} | {""}


def objects(kind: str) -> list[Any]:
    """All objects of one kind in the files that the kustomization names."""
    (kustomization,) = yaml_documents(FOLDER / "kustomization.yaml")
    files = [FOLDER / name for name in kustomization["resources"]]
    return [item for file in files for item in yaml_documents(file) if item["kind"] == kind]


def only(kind: str) -> Any:
    """The one object of a kind."""
    (item,) = objects(kind)
    return item


AGENT = only("StatefulSet")
MANAGER = only("Deployment")
WORKLOADS = [pytest.param(AGENT, id="sprite"), pytest.param(MANAGER, id="ops-manager")]


def pod(workload: Any) -> Any:
    return workload["spec"]["template"]["spec"]


def container(workload: Any, name: str) -> Any:
    (found,) = (item for item in pod(workload)["containers"] if item["name"] == name)
    return found


SERVERS = [
    pytest.param(AGENT, container(AGENT, "agent"), id="agent"),
    pytest.param(MANAGER, container(MANAGER, "manager"), id="manager"),
]


@pytest.mark.skipif(KUBECTL is None, reason="kubectl is not installed")
@pytest.mark.parametrize("folder", [FOLDER, FOLDER / "istio"], ids=["kubernetes", "istio"])
def test_kustomize_builds_it(folder: Any) -> None:
    done = subprocess.run(
        [str(KUBECTL), "kustomize", str(folder)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "namespace: spritemesh" in done.stdout


def test_every_file_is_part_of_a_kustomization() -> None:
    for folder in (FOLDER, FOLDER / "istio"):
        (kustomization,) = yaml_documents(folder / "kustomization.yaml")
        there = {path.name for path in folder.glob("*.yaml")} - {"kustomization.yaml"}
        assert there == set(kustomization["resources"])


def test_the_agent_takes_its_command_line() -> None:
    args = parse(container(AGENT, "agent")["args"])
    assert (args.repo, args.grpc, args.metrics) == ("/repository", "0.0.0.0:50551", "0.0.0.0:9551")
    assert not args.allow_unauthenticated


def test_the_manager_takes_its_command_line() -> None:
    args = parse(container(MANAGER, "manager")["args"])
    assert (args.repo, args.listen, args.metrics) == ("/state", "0.0.0.0:50561", "0.0.0.0:9561")
    assert not args.allow_unauthenticated


def test_the_demo_takes_its_command_line() -> None:
    program, command, *flags = container(AGENT, "runtime")["args"]
    assert (program, command) == ("sprite-agent", "demo-loop")
    help_text = StringIO()
    with redirect_stdout(help_text):
        demo(["--help"])
    for flag in flags:
        assert flag.partition("=")[0] in help_text.getvalue()


@pytest.mark.parametrize("workload", WORKLOADS)
def test_secrets_come_from_secrets_alone(workload: Any) -> None:
    for item in pod(workload)["containers"]:
        assert not any("token=" in word for word in item["args"])
        for variable in item.get("env", ()):
            assert ("TOKEN" in variable["name"]) == ("secretKeyRef" in variable.get("valueFrom", {}))
    for volume in pod(workload)["volumes"]:
        if "secret" in volume:
            assert volume["secret"]["defaultMode"] == 0o440


@pytest.mark.parametrize(("workload", "server"), SERVERS)
def test_files_of_a_command_line_are_mounted_secrets_or_maps(workload: Any, server: Any) -> None:
    mounts = {mount["mountPath"]: mount["name"] for mount in server["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod(workload)["volumes"]}
    for word in server["args"]:
        flag, _, path = word.partition("=")
        if flag in {"--token-file", "--metrics-token-file"}:
            folder, _, file = path.rpartition("/")
            assert "secret" in volumes[mounts[folder]]
            assert file == "token"
        elif flag == "--registry":
            assert "configMap" in volumes[mounts[path.rpartition("/")[0]]]


@pytest.mark.parametrize("workload", WORKLOADS)
def test_every_mounted_volume_exists(workload: Any) -> None:
    claimed = [claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", ())]
    volumes = {volume["name"] for volume in pod(workload)["volumes"]} | set(claimed)
    mounted = {mount["name"] for item in pod(workload)["containers"] for mount in item["volumeMounts"]}
    assert mounted == volumes


@pytest.mark.parametrize(("workload", "server"), SERVERS)
def test_probes_ask_the_health_service_of_a_port_that_is_listened_on(workload: Any, server: Any) -> None:
    ports = {port["name"]: port["containerPort"] for port in server["ports"]}
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        probe = server[name]["grpc"]
        assert probe["port"] == ports["grpc"]
        assert probe.get("service", "") in SERVED
    assert f":{ports['grpc']}" in " ".join(server["args"])
    assert f":{ports['http-metrics']}" in " ".join(server["args"])


@pytest.mark.parametrize("workload", WORKLOADS)
def test_nothing_runs_as_root_or_writes_its_image(workload: Any) -> None:
    whole = pod(workload)["securityContext"]
    assert whole["runAsNonRoot"] is True
    assert min(whole["runAsUser"], whole["runAsGroup"]) > 0
    assert whole["seccompProfile"] == {"type": "RuntimeDefault"}
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        assert not pod(workload).get(name)
    assert not any("hostPath" in volume for volume in pod(workload)["volumes"])
    assert pod(workload)["automountServiceAccountToken"] is False
    for item in pod(workload)["containers"]:
        context = item["securityContext"]
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert not context.get("privileged")
        assert item["resources"]["limits"]["memory"]
        assert item["resources"]["requests"].keys() == {"cpu", "memory"}


def test_the_agent_sees_the_processes_of_the_runtime_as_the_same_user() -> None:
    assert pod(AGENT)["shareProcessNamespace"] is True
    assert all("runAsUser" not in item["securityContext"] for item in pod(AGENT)["containers"])
    mounts = [
        {mount["mountPath"] for mount in item["volumeMounts"] if mount["name"] == "repository"}
        for item in pod(AGENT)["containers"]
    ]
    assert mounts == [{"/repository"}, {"/repository"}]


def test_there_is_never_a_second_manager() -> None:
    assert MANAGER["spec"]["replicas"] == 1
    assert MANAGER["spec"]["strategy"] == {"type": "Recreate"}


def test_services_select_pods_that_exist_and_ports_that_they_name() -> None:
    workloads = [AGENT, MANAGER]
    for service in objects("Service"):
        (chosen,) = (
            item
            for item in workloads
            if service["spec"]["selector"].items() <= item["spec"]["template"]["metadata"]["labels"].items()
        )
        named = {port["name"] for item in pod(chosen)["containers"] for port in item.get("ports", ())}
        assert {port["targetPort"] for port in service["spec"]["ports"]} == named
    assert AGENT["spec"]["serviceName"] in {service["metadata"]["name"] for service in objects("Service")}


def test_service_accounts_of_the_pods_exist() -> None:
    accounts = {account["metadata"]["name"] for account in objects("ServiceAccount")}
    assert {pod(item)["serviceAccountName"] for item in (AGENT, MANAGER)} <= accounts


def test_network_policies_let_in_what_services_offer_and_deny_the_rest() -> None:
    policies = {policy["metadata"]["name"]: policy["spec"] for policy in objects("NetworkPolicy")}
    assert policies["nothing-else"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for name in ("sprite", "ops-manager"):
        let_in = {port["port"] for rule in policies[name]["ingress"] for port in rule["ports"]}
        assert let_in == {"grpc", "http-metrics"}
        assert all(rule["from"] for rule in policies[name]["ingress"])


def test_the_manager_can_use_the_example_registry_with_the_variables_it_gets() -> None:
    registry = read_registry(str(FOLDER / "registry.v1.json"))
    check(registry, {variable["name"]: "token" for variable in container(MANAGER, "manager")["env"]})
    (service,) = (item for item in objects("Service") if item["spec"].get("clusterIP") == "None")
    sprite = f"{AGENT['metadata']['name']}-0.{service['metadata']['name']}"
    ports = {port["name"]: port["port"] for port in service["spec"]["ports"]}
    assert [entry.base_url for entry in registry.loops] == [f"grpc://{sprite}:{ports['grpc']}"]
