"""Specs and targets for tests, rendered from the real chart."""

import asyncio
from dataclasses import replace
from functools import cache
from typing import Any

from provisioner.clients.helm import Charts
from provisioner.contract.spec import Desired, InstanceSpec, Probe, Size
from provisioner.plan import Target
from provisioner.render import Renderer, default_charts_folder
from provisioner.secrets import RootKey
from provisioner.values import PlatformSettings

ROOT = RootKey(b"a test's root key, 32 bytes or so")
PLATFORM = PlatformSettings(
    apps_url="http://{slug}.apps.localhost:8088", ingress_class="nginx", storage_class="standard"
)
SPEC = InstanceSpec(
    instance_id="iabcd2345",
    customer_id="cus2345",
    product="mindroom",
    title="MindRoom",
    plan="starter",
    slug="acme",
    host="acme.apps.localhost",
    desired=Desired.RUNNING,
    chart="instance",
    chart_version="0.1.0",
    image="berth.local/sample:1",
    port=8080,
    data_path="/data",
    size=Size(cpu_request=50, cpu_limit=500, memory=256 << 20, storage=1 << 30),
    limits={"notes": 100, "users": None},
    probe=Probe(),
    entitlement_file="/etc/berth/entitlements.json",
    environment={"APP_NAME": "acme"},
    secret_names=("SESSION_KEY",),
)


def spec(**changes: Any) -> InstanceSpec:  # noqa: ANN401 - passed on to a dataclass that names its fields
    """Return a spec like SPEC but for `changes`."""
    return replace(SPEC, **changes)


def renderer(platform: PlatformSettings = PLATFORM) -> Renderer:
    """Return a renderer of this project's own charts."""
    return Renderer(Charts(default_charts_folder()), platform, ROOT)


@cache
def default_target() -> Target:
    """Return the target of SPEC."""
    return asyncio.run(renderer().target(SPEC))
