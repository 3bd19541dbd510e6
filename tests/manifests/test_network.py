"""Who may talk to whom: nothing but what a policy names, and what a site says lands in the policies."""

import ipaddress
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from manifests.kustomize import OVERLAYS, ROOT, Resource, build
from tests.manifests.built import built, everything, of_kind, the_one

WITH_BASE = [overlay for overlay in OVERLAYS if overlay != "overlays/gitops"]
NOWHERE = [ipaddress.ip_network(net) for net in ("192.0.2.0/24", "198.51.100.0/24")]  # RFC 5737
PRIVATE = [ipaddress.ip_network(net) for net in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")]


def blocks(resource: Resource) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """Every address range that a policy opens."""
    rules = resource["spec"].get("egress", []) + resource["spec"].get("ingress", [])
    peers = [peer for rule in rules for peer in [*rule.get("to", []), *rule.get("from", [])]]
    return [ipaddress.ip_network(peer["ipBlock"]["cidr"]) for peer in peers if "ipBlock" in peer]


def matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    assert set(selector) == {"matchLabels"}
    wanted: dict[str, str] = selector["matchLabels"]
    return wanted.items() <= labels.items()


@pytest.mark.parametrize("overlay", WITH_BASE)
def test_all_pods_are_shut_off_both_ways_before_anything_is_opened(overlay: str) -> None:
    assert of_kind(overlay, "NetworkPolicy")["default-deny"]["spec"] == {
        "podSelector": {},
        "policyTypes": ["Ingress", "Egress"],
    }


def test_every_rule_names_both_a_peer_and_ports() -> None:
    policies = [resource for resource in everything() if resource["kind"] == "NetworkPolicy"]
    for policy in policies:
        spec = policy["spec"]
        for direction, peers in (("egress", "to"), ("ingress", "from")):
            for rule in spec.get(direction, []):
                assert direction.capitalize() in spec["policyTypes"]
                assert rule[peers]
                assert rule.get("ports") or policy["metadata"]["name"] == "train-jobs"


def test_no_policy_opens_the_internet() -> None:
    for overlay in WITH_BASE:
        allowed = NOWHERE + PRIVATE if overlay == "overlays/dev" else NOWHERE
        for policy in of_kind(overlay, "NetworkPolicy").values():
            for block in blocks(policy):
                assert any(block.subnet_of(net) for net in allowed)  # type: ignore[arg-type]


def test_pods_reach_what_kubeflows_driver_and_launcher_call() -> None:
    rules = of_kind("base", "NetworkPolicy")["kubeflow-pipelines"]["spec"]["egress"]
    reached = []
    for rule in rules:
        (peer,) = rule["to"]
        assert peer["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "kubeflow"}}
        reached.append((peer["podSelector"], [port["port"] for port in rule["ports"]]))
    stores = {"key": "app", "operator": "In", "values": ["seaweedfs", "minio"]}
    assert reached == [
        ({"matchLabels": {"app": "ml-pipeline"}}, [8887]),
        ({"matchLabels": {"component": "metadata-grpc-server"}}, [8080]),
        ({"matchExpressions": [stores]}, [8333, 9000]),
    ]


def test_only_a_pod_that_starts_runs_reaches_the_rest_api() -> None:
    opened = {
        name: policy["spec"]["podSelector"]
        for name, policy in of_kind("base", "NetworkPolicy").items()
        for rule in policy["spec"].get("egress", [])
        if 8888 in [port["port"] for port in rule["ports"]]
    }
    assert opened == {"submitter": {"matchLabels": {"app.kubernetes.io/component": "submitter"}}}


def test_what_a_site_says_lands_in_the_policies(tmp_path: Path) -> None:
    shutil.copytree(ROOT, tmp_path / "manifests", ignore=shutil.ignore_patterns("__pycache__"))
    site_path = tmp_path / "manifests" / "overlays" / "prod" / "site.yaml"
    site = yaml.load(site_path.read_text(), yaml.CSafeLoader)
    said = {
        "kubernetes_api_cidr": "10.1.0.1/32",
        "kubernetes_api_port": "8443",
        "object_store_cidr": "10.2.0.0/24",
        "object_store_port": "9443",
        "model_mirror_cidr": "10.3.0.1/32",
        "model_mirror_port": "8081",
    }
    assert site["data"].keys() == said.keys()
    site_path.write_text(yaml.dump(site | {"data": said}))

    made = list(yaml.load_all(build(tmp_path / "manifests" / "overlays" / "prod"), yaml.CSafeLoader))
    policies = {
        resource["metadata"]["name"]: resource["spec"]["egress"]
        for resource in made
        if resource["kind"] == "NetworkPolicy" and "egress" in resource["spec"]
    }
    for name, cidr, port in (
        ("kubernetes-api", "10.1.0.1/32", 8443),
        ("object-store", "10.2.0.0/24", 9443),
        ("model-mirror", "10.3.0.1/32", 8081),
    ):
        assert policies[name] == [
            {"to": [{"ipBlock": {"cidr": cidr}}], "ports": [{"protocol": "TCP", "port": port}]}
        ]
    assert "ConfigMap" not in {resource["kind"] for resource in made}


def test_in_dev_the_api_server_is_reached_where_small_clusters_have_it() -> None:
    (rule,) = of_kind("overlays/dev", "NetworkPolicy")["kubernetes-api"]["spec"]["egress"]
    assert [port["port"] for port in rule["ports"]] == [443, 6443, 8443]  # 8443: minikube


def test_in_dev_the_store_is_reached_by_runs_and_by_nobody_else() -> None:
    server = the_one("overlays/dev", "StatefulSet")["spec"]
    labels = server["template"]["metadata"]["labels"]
    (container,) = server["template"]["spec"]["containers"]
    (listening,) = container["ports"]
    policies = of_kind("overlays/dev", "NetworkPolicy")
    port = [{"protocol": "TCP", "port": listening["containerPort"]}]

    (out,) = policies["object-store"]["spec"]["egress"]
    assert matches(out["to"][0]["podSelector"], labels)
    assert out["ports"] == port
    assert matches(policies["seaweedfs"]["spec"]["podSelector"], labels)
    assert policies["seaweedfs"]["spec"]["ingress"] == [{"from": [{"podSelector": {}}], "ports": port}]
    assert f"-s3.port={listening['containerPort']}" in container["args"]


def test_every_service_finds_pods_and_the_port_that_they_open() -> None:
    for overlay in OVERLAYS:
        for service in of_kind(overlay, "Service").values():
            templates = [
                resource["spec"]["template"]
                for resource in built(overlay)
                if resource["kind"] in ("Deployment", "StatefulSet")
                and service["spec"]["selector"].items()
                <= resource["spec"]["template"]["metadata"]["labels"].items()
            ]
            assert templates
            for template in templates:
                opened = {
                    port["name"]
                    for container in template["spec"]["containers"]
                    for port in container["ports"]
                }
                assert {port["targetPort"] for port in service["spec"]["ports"]} <= opened


def test_pods_of_train_jobs_talk_to_each_other_alone() -> None:
    spec = of_kind("examples/team", "NetworkPolicy")["train-jobs"]["spec"]
    assert spec["ingress"] == [{"from": [{"podSelector": spec["podSelector"]}]}]
    assert spec["egress"] == [{"to": [{"podSelector": spec["podSelector"]}]}]
    assert spec["podSelector"]["matchExpressions"][0]["key"] == "jobset.sigs.k8s.io/jobset-name"
