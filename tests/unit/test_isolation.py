from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.contract.spec import Size
from provisioner.isolation import isolation, namespace
from provisioner.labels import labels
from provisioner.quantity import amount
from provisioner.values import PlatformSettings
from tests.instance_specs import PLATFORM, SPEC, spec

SIZES = st.builds(
    Size,
    cpu_request=st.integers(1, 8000),
    cpu_limit=st.integers(1, 16000),
    memory=st.integers(1 << 20, 64 << 30),
    storage=st.integers(0, 1 << 42),
    replicas=st.integers(1, 20),
)


def find(kind: str, name: str, platform: PlatformSettings = PLATFORM) -> dict[str, Any]:
    return next(
        item
        for item in isolation(SPEC, platform)
        if item["kind"] == kind and item["metadata"]["name"] == name
    )


def reachable(address: str) -> bool:
    blocks = [rule["ipBlock"] for rule in find("NetworkPolicy", "allow-internet")["spec"]["egress"][0]["to"]]
    return any(
        ip_address(address) in ip_network(block["cidr"])
        and not any(ip_address(address) in ip_network(hole) for hole in block["except"])
        for block in blocks
    )


def test_the_namespace_admits_only_restricted_pods() -> None:
    found = namespace(SPEC)["metadata"]["labels"]
    assert found["pod-security.kubernetes.io/enforce"] == "restricted"
    assert found["pod-security.kubernetes.io/warn"] == "restricted"


def test_everything_carries_the_labels_and_lies_in_the_instances_namespace() -> None:
    for manifest in (namespace(SPEC), *isolation(SPEC, PLATFORM)):
        assert labels(SPEC).items() <= manifest["metadata"]["labels"].items()
        assert manifest["metadata"].get("namespace", SPEC.namespace) == SPEC.namespace


def test_traffic_is_denied_both_ways_unless_a_policy_opens_it() -> None:
    denied = find("NetworkPolicy", "default-deny")["spec"]
    assert denied == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_only_the_ingress_controller_gets_in_and_only_to_the_apps_port() -> None:
    policies = [item["spec"] for item in isolation(SPEC, PLATFORM) if item["kind"] == "NetworkPolicy"]
    openings = [rule for policy in policies for rule in policy.get("ingress", ())]
    selector = {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}
    assert openings == [
        {"from": [{"namespaceSelector": selector}], "ports": [{"protocol": "TCP", "port": 8080}]}
    ]


@pytest.mark.parametrize(
    "address",
    [
        "10.96.0.1",
        "10.244.3.4",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "127.0.0.1",
        "0.0.0.0",  # noqa: S104 - an address that must not be reachable
        "224.0.0.1",
        "255.255.255.255",
        "fd00:ec2::254",
        "fe80::1",
        "::1",
        "ff02::1",
    ],
)
def test_no_private_address_can_be_reached(address: str) -> None:
    assert not reachable(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111"])
def test_the_internet_can_be_reached(address: str) -> None:
    assert reachable(address)


def test_beyond_the_internet_only_dns_leaves() -> None:
    rules = [
        rule
        for item in isolation(SPEC, PLATFORM)
        if item["kind"] == "NetworkPolicy" and item["metadata"]["name"] != "allow-internet"
        for rule in item["spec"].get("egress", ())
    ]
    assert rules == [{"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]}]


@given(SIZES)
def test_the_quota_leaves_room_for_every_replica_and_one_surging(size: Size) -> None:
    quota = isolation(spec(size=size), PLATFORM)[0]["spec"]["hard"]

    def granted(key: str) -> int:
        value = amount(quota[key])
        assert value is not None
        return int(value * 1000)

    pods = size.replicas + 1
    assert granted("pods") >= pods * 1000
    assert granted("requests.cpu") >= pods * size.cpu_request
    assert granted("limits.cpu") >= pods * size.cpu_limit
    assert granted("limits.memory") >= pods * size.memory * 1000
    assert granted("requests.storage") == size.storage * 1000
    assert quota["services.loadbalancers"] == quota["services.nodeports"] == "0"


def test_an_app_without_data_may_claim_no_storage() -> None:
    quota = isolation(spec(data_path=""), PLATFORM)[0]["spec"]["hard"]
    assert (quota["requests.storage"], quota["persistentvolumeclaims"]) == ("0", "0")


def test_no_container_may_take_more_than_the_tier_and_none_gets_a_token() -> None:
    (limits,) = find("LimitRange", "tier")["spec"]["limits"]
    assert limits["max"] == limits["default"] == {"cpu": "500m", "memory": "256Mi"}
    assert find("ServiceAccount", "instance")["automountServiceAccountToken"] is False
