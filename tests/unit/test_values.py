import json

import pytest

from provisioner.contract.errors import PermanentError
from provisioner.contract.spec import Desired, Size
from provisioner.values import PlatformSettings, entitlements, values
from tests.instance_specs import PLATFORM, SPEC, spec


def test_what_was_bought_is_what_the_app_reads() -> None:
    assert json.loads(entitlements(SPEC)) == {
        "instance": "iabcd2345",
        "customer": "cus2345",
        "product": "mindroom",
        "title": "MindRoom",
        "plan": "starter",
        "slug": "acme",
        "host": "acme.apps.localhost",
        "limits": {"notes": 100, "users": None},
    }


def test_the_size_becomes_requests_and_limits() -> None:
    assert values(SPEC, PLATFORM)["resources"] == {
        "requests": {"cpu": "50m", "memory": "256Mi"},
        "limits": {"cpu": "500m", "memory": "256Mi"},
    }


@pytest.mark.parametrize(
    ("desired", "replicas"), [(Desired.RUNNING, 2), (Desired.SUSPENDED, 0), (Desired.DELETED, 0)]
)
def test_only_what_is_desired_to_run_runs(desired: Desired, replicas: int) -> None:
    wanted = spec(desired=desired, data_path="", size=Size(50, 500, 1 << 28, 0, replicas=2))
    assert values(wanted, PLATFORM)["workload"]["replicas"] == replicas


def test_two_pods_on_one_volume_are_refused_with_the_remedy() -> None:
    with pytest.raises(PermanentError, match=r"size\.replicas to 1"):
        values(spec(size=Size(50, 500, 1 << 28, 1 << 30, replicas=2)), PLATFORM)


def test_the_platforms_settings_arrive() -> None:
    platform = PlatformSettings(
        apps_url="https://{slug}.apps.example.com",
        node_selector={"pool": "tenants"},
        tolerations=({"key": "tenants", "operator": "Exists"},),
    )
    found = values(SPEC, platform)
    assert found["nodeSelector"] == {"pool": "tenants"}
    assert found["tolerations"] == [{"key": "tenants", "operator": "Exists"}]
    assert platform.url(SPEC) == "https://acme.apps.example.com"
