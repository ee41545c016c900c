from typing import Annotated

from fastapi import APIRouter, Path, Query

from platform_api import problems
from platform_api.dependencies import CurrentCustomer, CurrentServices
from platform_api.instances.schemas import InstanceEventPage, InstancePage, InstanceView
from platform_api.pagination import Cursor, Limit
from platform_api.problems import responses

router = APIRouter(tags=["instances"])

InstanceId = Annotated[str, Path()]


@router.get("/v1/instances", responses=responses(problems.UNAUTHENTICATED, problems.INVALID))
async def list_instances(
    services: CurrentServices, customer: CurrentCustomer, cursor: Cursor = None, limit: Limit = 20
) -> InstancePage:
    """List your instances, newest first."""
    return await services.instances.page(customer.id, cursor, limit)


@router.get("/v1/instances/{instance_id}", responses=responses(problems.UNAUTHENTICATED, problems.NOT_FOUND))
async def get_instance(
    services: CurrentServices, customer: CurrentCustomer, instance_id: InstanceId
) -> InstanceView:
    """Show one of your instances."""
    return await services.instances.get(customer.id, instance_id)


@router.get(
    "/v1/instances/{instance_id}/events",
    responses=responses(problems.UNAUTHENTICATED, problems.NOT_FOUND, problems.INVALID),
)
async def list_instance_events(
    services: CurrentServices,
    customer: CurrentCustomer,
    instance_id: InstanceId,
    after: Annotated[int, Query(ge=0, le=2**62)] = 0,
    limit: Limit = 50,
) -> InstanceEventPage:
    """Tell what happened to one of your instances, oldest first."""
    return await services.instances.events(customer.id, instance_id, after, limit)
