"""The labels every object of an instance carries: what the watch and pruning select by."""

from typing import Final

from provisioner.contract.spec import InstanceSpec

MANAGED_BY: Final = "app.kubernetes.io/managed-by"
MANAGER: Final = "berth"  # also the name our field ownership goes by
INSTANCE: Final = "berth.dev/instance"
SELECTOR: Final = f"{MANAGED_BY}={MANAGER}"
APPLIED: Final = "berth.dev/applied"  # annotation: hash of the manifest as last applied


def labels(spec: InstanceSpec) -> dict[str, str]:
    """Labels of every object and pod template of `spec`."""
    return {
        MANAGED_BY: MANAGER,
        INSTANCE: spec.instance_id,
        "berth.dev/customer": spec.customer_id,
        "berth.dev/product": spec.product,
        "berth.dev/plan": spec.plan,
    }
