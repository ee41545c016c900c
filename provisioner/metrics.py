"""What the workers tell Prometheus."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from provisioner.queue_view import Depth


class WorkerMetrics:
    """The work queue's counters and gauges, in `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.claimed = Counter("berth_work_claimed", "Items claimed", ["kind"], registry=registry)
        self.outcomes = Counter(
            "berth_work_outcomes",
            "How passes ended: completed, failed, parked, lost (lease), handed_back",
            ["kind", "outcome"],
            registry=registry,
        )
        self.duration = Histogram(
            "berth_work_duration_seconds", "Time a handler took", ["kind"], registry=registry
        )
        self.items = Gauge("berth_work_items", "Items by state", ["kind", "state"], registry=registry)
        self.oldest_due = Gauge(
            "berth_work_oldest_due_seconds", "How long the oldest due item waits", ["kind"], registry=registry
        )

    def observe(self, depths: Iterable[Depth]) -> None:
        """Set the gauges to what the database just said."""
        for depth in depths:
            self.items.labels(depth.kind, "parked").set(depth.parked)
            self.items.labels(depth.kind, "running").set(depth.running)
            self.items.labels(depth.kind, "due").set(depth.due)
            self.items.labels(depth.kind, "waiting").set(depth.waiting)
            self.oldest_due.labels(depth.kind).set(depth.oldest_due)
