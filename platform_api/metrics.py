from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


@dataclass(frozen=True)
class Metrics:
    """What one API process counts; seconds are seconds."""

    registry: CollectorRegistry
    requests: Counter
    request_seconds: Histogram
    stripe_events: Counter
    stripe_events_waiting: Gauge

    def of_request(self, method: str, route: str, status: int) -> tuple[Counter, Histogram]:
        """Return what counts such requests and what times them."""
        return self.requests.labels(method, route, str(status)), self.request_seconds.labels(method, route)


def make_metrics() -> Metrics:
    """Return counters at zero, in a registry of their own."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    return Metrics(
        registry=registry,
        requests=Counter(
            "berth_api_requests", "Requests answered", ["method", "route", "status"], registry=registry
        ),
        request_seconds=Histogram(
            "berth_api_request_seconds",
            "Time to answer",
            ["method", "route"],
            buckets=_BUCKETS,
            registry=registry,
        ),
        stripe_events=Counter(
            "berth_api_stripe_events",
            "Events received from Stripe, by what became of them",
            ["type", "outcome"],
            registry=registry,
        ),
        stripe_events_waiting=Gauge(
            "berth_api_stripe_events_waiting",
            "Events received from Stripe that are not yet stored or refused",
            registry=registry,
        ),
    )
