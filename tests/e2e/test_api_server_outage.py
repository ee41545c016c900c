"""The API server is away for a while: nothing is concluded from that, and work goes on when it is back."""

import asyncio

import pytest

from sandbox.kubernetes import cluster as embedded
from sandbox.kubernetes.layout import ClusterConfig
from scripts import machine
from tests.e2e.conftest import NAME, StartBerth

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

OUTAGE_SECONDS = 20


async def test_invariant_05_unknown_is_not_down(start_berth: StartBerth) -> None:
    config = ClusterConfig(NAME, machine.cluster_folder(NAME), {})
    async with start_berth() as berth:
        await berth.services.start()
        await berth.buy("before")
        await berth.wait_ready(1)
        before = await berth.rows("SELECT id, phase, conditions, phase_since FROM instance")

        await embedded.stop_api_server(config)
        try:
            await berth.buy("during")
            await asyncio.sleep(OUTAGE_SECONDS)  # the outage itself
            during = await berth.rows("SELECT id, phase, conditions, phase_since FROM instance")
        finally:
            await embedded.start_api_server(config)

        assert [row for row in during if row["id"] == before[0]["id"]] == before
        assert {row["phase"] for row in during} == {"ready", "pending"}
        await berth.wait_ready(2, 180)  # Kubernetes' own controllers back off too
        events = await berth.rows("SELECT reason FROM instance_event WHERE instance_id = %s", before[0]["id"])
        assert not [event for event in events if "degraded" in event["reason"].lower()]
