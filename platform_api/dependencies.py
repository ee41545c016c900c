"""How routes get at what `make_app` assembled."""

from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request
from fastapi.security import HTTPBearer

from platform_api.billing.portal import PortalService
from platform_api.billing.service import BillingService
from platform_api.billing.subscriptions import SubscriptionService
from platform_api.customers.queries import Customer
from platform_api.customers.service import CustomerService
from platform_api.database import Pool
from platform_api.instances.service import InstanceService
from platform_api.stripe_events.service import EventIntake


@dataclass(frozen=True, slots=True)
class Services:
    """What one app is made of."""

    pool: Pool
    customers: CustomerService
    billing: BillingService
    portal: PortalService
    subscriptions: SubscriptionService
    instances: InstanceService
    events: EventIntake


# async although it awaits nothing: FastAPI sends what is not to a thread, which costs more than the rest.
async def _services(request: Request) -> Services:
    return cast("Services", request.app.state.services)


CurrentServices = Annotated[Services, Depends(_services)]

# Only documents the scheme: what the header must be, and its 401, are the customers' service's to say.
_BEARER = HTTPBearer(auto_error=False, description="The token that POST /v1/customers gave")


async def _customer(
    request: Request, services: CurrentServices, _scheme: Annotated[object, Depends(_BEARER)]
) -> Customer:
    return await services.customers.authenticate(request.headers.get("authorization", ""))


CurrentCustomer = Annotated[Customer, Depends(_customer)]
