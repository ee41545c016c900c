"""What goes wrong in the cluster surfaces as a sentence a person understands."""

from pathlib import Path

import pytest
import yaml

from catalogue.loader import load_catalogue
from provisioner.clients.kubernetes import KINDS
from tests.e2e.conftest import StartBerth
from tests.e2e.harness import Berth, Row, until

pytestmark = pytest.mark.cluster

MINDROOM = Path(load_catalogue.__code__.co_filename).parent / "mindroom.yaml"


@pytest.mark.real_pods
async def test_a_failing_image_pull_is_said_with_the_image(start_berth: StartBerth, tmp_path: Path) -> None:
    catalogue = changed_catalogue(tmp_path, image="berth.local/never-built:1")
    async with start_berth(simulated=False, BERTH_CATALOGUE_DIR=str(catalogue)) as berth:
        await berth.services.start()
        await berth.buy("acme")
        condition = await wait_condition(berth, "ImagePullFailed")
        assert "berth.local/never-built:1" in condition["message"]
        assert condition["status"] is False


async def test_an_impossible_quota_is_said_with_its_numbers(start_berth: StartBerth) -> None:
    async with start_berth() as berth:
        await berth.services.start()
        await berth.buy("acme")
        [instance] = await berth.wait_ready()
        namespace = f"berth-{instance['id']}"
        await berth.cluster.apply(
            {
                "apiVersion": "v1",
                "kind": "ResourceQuota",
                "metadata": {"name": "somebody-elses", "namespace": namespace},
                "spec": {"hard": {"pods": "0"}},
            }
        )

        async def counted() -> bool | None:
            quota = await berth.cluster.get(KINDS["ResourceQuota"], namespace, "somebody-elses")
            return True if (quota.get("status") or {}).get("used") else None

        await until(counted, 20, berth.describe)
        for pod in (await berth.cluster.list(KINDS["Pod"], namespace=namespace)).items:
            metadata = pod["metadata"]
            await berth.cluster.delete(KINDS["Pod"], namespace, metadata["name"], uid=metadata["uid"])
        condition = await wait_condition(berth, "QuotaExceeded")
        assert "somebody-elses" in condition["message"]
        [instance] = await berth.instances()
        assert instance["phase"] == "degraded"


async def test_an_impossible_size_is_said(start_berth: StartBerth, tmp_path: Path) -> None:
    catalogue = changed_catalogue(tmp_path, cpu={"request": "4000", "limit": "4000"})
    async with start_berth(BERTH_CATALOGUE_DIR=str(catalogue)) as berth:
        await berth.services.start()
        await berth.buy("acme")
        condition = await wait_condition(berth, "Unschedulable")
        assert "no host has room" in condition["message"]


def changed_catalogue(folder: Path, *, image: str | None = None, cpu: dict[str, str] | None = None) -> Path:
    """Write a catalogue whose mindroom has another image or starter size."""
    product = yaml.safe_load(MINDROOM.read_text(encoding="utf-8"))
    if image is not None:
        product["image"] = image
    if cpu is not None:
        product["plans"]["starter"]["size"]["cpu"] = cpu
    target = folder / "catalogue"
    target.mkdir()
    (target / "mindroom.yaml").write_text(yaml.safe_dump(product), encoding="utf-8")
    return target


async def wait_condition(berth: Berth, reason: str) -> Row:
    """Return the first condition of the one instance that has `reason`."""

    async def look() -> Row | None:
        found = await berth.instances()
        conditions = [c for row in found for c in row["conditions"] if c["reason"] == reason]
        return conditions[0] if conditions else None

    return await until(look, 60, berth.describe)
