"""From what was bought to what is owed: an instance's spec. Pure."""

import hashlib
from base64 import b32encode
from collections.abc import Iterator
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from catalogue.schema import PricedPlan
from provisioner.contract.spec import Desired, InstanceSpec, Probe, Size

LABEL_LENGTH = 63


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose instance it is and what it is called."""

    instance_id: str
    customer_id: str
    slug: str


def build_spec(owner: Owner, bought: PricedPlan, apps_url: str, chart_version: str) -> InstanceSpec:
    """Pin everything a new instance needs.

    Args:
        owner: its id, its customer and its name.
        bought: the plan, as the catalogue has it now.
        apps_url: where instances answer, such as `https://{slug}.apps.example.com`.
        chart_version: of the chart the product names, as it is now.
    """
    product, plan = bought.product, bought.plan
    return InstanceSpec(
        instance_id=owner.instance_id,
        customer_id=owner.customer_id,
        product=product.product,
        title=product.title,
        plan=bought.plan_name,
        slug=owner.slug,
        host=urlsplit(apps_url.format(slug=owner.slug)).hostname or "",
        desired=Desired.RUNNING,
        chart=product.chart or "instance",
        chart_version=chart_version,
        image=product.image or "",
        port=product.port,
        data_path=product.data_path,
        size=_size(bought),
        limits=dict(plan.limits),
        probe=Probe(
            path=product.probe.path,
            period=product.probe.period,
            timeout=product.probe.timeout,
            failure_threshold=product.probe.failure_threshold,
            startup=product.probe.startup,
        ),
        entitlement_file=product.entitlement.file,
        environment=product.limit_environment(plan),
        secret_names=tuple(product.secrets),
    )


def change_plan(spec: InstanceSpec, bought: PricedPlan) -> InstanceSpec:
    """The spec on another plan of the same product; chart and image stay as they are pinned.

    On the same plan nothing changes, even if the catalogue did: changing the fleet is its own operation.
    Storage never shrinks (invariant 12).
    """
    if bought.plan_name == spec.plan:
        return spec
    size = _size(bought)
    return replace(
        spec,
        plan=bought.plan_name,
        size=replace(size, storage=max(size.storage, spec.size.storage)),
        limits=dict(bought.plan.limits),
        environment=bought.product.limit_environment(bought.plan),
    )


def slug_candidates(wanted: str | None, product: str, subscription_id: str) -> Iterator[str]:
    """Names to try in turn, the same for the same subscription: the wanted one, then with longer suffixes."""
    tail = b32encode(hashlib.sha256(subscription_id.encode()).digest()).decode().lower()
    if wanted:
        yield wanted
    for length in (6, 10, 16):
        yield f"{(wanted or product)[: LABEL_LENGTH - length - 1]}-{tail[:length]}"


def _size(bought: PricedPlan) -> Size:
    size = bought.plan.size
    return Size(
        cpu_request=size.cpu_request,
        cpu_limit=size.cpu_limit,
        memory=size.memory,
        storage=size.storage,
        replicas=size.replicas,
    )
