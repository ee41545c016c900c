"""From what was bought to what is owed: an instance's spec. Pure."""

import hashlib
from base64 import b32encode
from collections.abc import Iterator
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from catalogue.schema import Purchase
from provisioner.contract.spec import Desired, InstanceSpec, Probe, Size

LABEL_LENGTH = 63


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose instance it is and what it is called."""

    instance_id: str
    customer_id: str
    slug: str


def build_spec(owner: Owner, bought: Purchase, apps_url: str, chart_version: str) -> InstanceSpec:
    """Pin everything a new instance needs.

    Args:
        owner: its id, its customer and its name.
        bought: the plan and what is added to it, as the catalogue has it now.
        apps_url: where instances answer, such as `https://{slug}.apps.example.com`.
        chart_version: of the chart the product names, as it is now.
    """
    product = bought.product
    return InstanceSpec(
        instance_id=owner.instance_id,
        customer_id=owner.customer_id,
        product=product.product,
        title=product.title,
        plan=bought.plan_name,
        plan_title=bought.plan.title,
        slug=owner.slug,
        host=urlsplit(apps_url.format(slug=owner.slug)).hostname or "",
        desired=Desired.RUNNING,
        chart=product.chart or "instance",
        chart_version=chart_version,
        image=product.image or "",
        port=product.port,
        data_path=product.data_path,
        size=_size(bought),
        limits=bought.limits,
        probe=Probe(
            path=product.probe.path,
            period=product.probe.period,
            timeout=product.probe.timeout,
            failure_threshold=product.probe.failure_threshold,
            startup=product.probe.startup,
        ),
        entitlement_file=product.entitlement.file,
        environment=bought.environment,
        secret_names=tuple(product.secrets),
        quantity=bought.quantity,
        add_ons=dict(bought.add_ons),
    )


def change_plan(spec: InstanceSpec, bought: Purchase) -> InstanceSpec:
    """The spec for another purchase of the same product; chart and image stay as they are pinned.

    For the same purchase nothing changes, even if the catalogue did: changing the fleet is its own operation.
    Storage never shrinks (invariant 12).
    """
    if (bought.plan_name, bought.quantity, bought.add_ons) == (spec.plan, spec.quantity, spec.add_ons):
        return spec
    size = _size(bought)
    return replace(
        spec,
        plan=bought.plan_name,
        plan_title=bought.plan.title,
        size=replace(size, storage=max(size.storage, spec.size.storage)),
        limits=bought.limits,
        environment=bought.environment,
        quantity=bought.quantity,
        add_ons=dict(bought.add_ons),
    )


def slug_candidates(wanted: str | None, product: str, subscription_id: str) -> Iterator[str]:
    """Names to try in turn, the same for the same subscription: the wanted one, then with longer suffixes."""
    tail = b32encode(hashlib.sha256(subscription_id.encode()).digest()).decode().lower()
    if wanted:
        yield wanted
    for length in (6, 10, 16):
        yield f"{(wanted or product)[: LABEL_LENGTH - length - 1]}-{tail[:length]}"


def _size(bought: Purchase) -> Size:
    size = bought.plan.size
    return Size(
        cpu_request=size.cpu_request,
        cpu_limit=size.cpu_limit,
        memory=size.memory,
        storage=size.storage,
        replicas=size.replicas,
    )
