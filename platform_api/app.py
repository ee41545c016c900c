import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import structlog
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi_offline import FastAPIOffline
from starlette.middleware import Middleware

from catalogue.schema import Catalogue
from platform_api import health, problems
from platform_api.billing import routes as billing
from platform_api.billing.portal import PortalService
from platform_api.billing.reservations import Reservations
from platform_api.billing.service import BillingService
from platform_api.billing.subscriptions import SubscriptionService
from platform_api.customers import routes as customers
from platform_api.customers.service import CustomerService
from platform_api.database import Pool
from platform_api.dependencies import Services
from platform_api.doorbell import Doorbell
from platform_api.instances import routes as instances
from platform_api.instances.service import InstanceService
from platform_api.logs import Log, RequestLog
from platform_api.metrics import Metrics
from platform_api.request_bounds import BodyLimit, ConcurrencyLimit, TrustedHosts
from platform_api.settings import Settings
from platform_api.stripe_events import routes as stripe_events
from platform_api.stripe_events.group_commit import GroupCommit
from platform_api.stripe_events.service import EventIntake
from platform_api.stripe_gateway import StripeGateway

_DESCRIPTION = """Buy an application and get an instance of it that is yours alone.
Errors are problems as in RFC 9457; `type` says which, `detail` what to do."""


def make_app(
    settings: Settings, pool: Pool, catalogue: Catalogue, gateway: StripeGateway, metrics: Metrics
) -> FastAPI:
    """Assemble the API from its parts. Nothing is opened or started before the app's lifespan is."""
    log: Log = structlog.stdlib.get_logger("platform_api")
    doorbell = Doorbell(pool, log)
    app = FastAPIOffline(
        title="Berth",
        version="1",
        description=_DESCRIPTION,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
        redoc_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # asked for at every request otherwise
        routes=stripe_events.router.routes,
        lifespan=_lifespan(doorbell),
        middleware=[
            Middleware(RequestLog, metrics=metrics, log=log),
            Middleware(TrustedHosts, hosts=settings.hosts),
            Middleware(ConcurrencyLimit),
            Middleware(BodyLimit),
        ],
    )
    public_url, url_of = settings.public_url, settings.instance_url
    portal = PortalService(pool, catalogue, gateway, public_url)
    reservations = Reservations(pool, gateway)
    inbox = GroupCommit(pool)
    metrics.stripe_events_waiting.set_function(lambda: inbox.under_way)
    app.state.services = Services(
        pool=pool,
        customers=CustomerService(pool),
        billing=BillingService(pool, catalogue, gateway, reservations, portal, public_url, url_of),
        portal=portal,
        subscriptions=SubscriptionService(pool, catalogue, url_of),
        instances=InstanceService(pool, url_of),
        events=EventIntake(settings.webhook_secrets, inbox, doorbell, metrics),
    )
    for module in (customers, billing, instances, health):
        app.include_router(module.router)
    problems.install(app)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]  # FastAPI's documented way to extend it
    return app


def _lifespan(doorbell: Doorbell) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        ringing = asyncio.create_task(doorbell.run())
        try:
            yield
        finally:
            ringing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await ringing

    return lifespan


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        schema = problems.ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas = document["components"]["schemas"]
        schemas.update(schema.pop("$defs"))
        schemas["ProblemDocument"] = schema
        app.openapi_schema = document
    return app.openapi_schema
