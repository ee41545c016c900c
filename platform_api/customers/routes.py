from fastapi import APIRouter

from platform_api import problems
from platform_api.customers.schemas import Me, SignedUp, SignUp
from platform_api.dependencies import CurrentCustomer, CurrentServices
from platform_api.problems import responses

router = APIRouter(tags=["customers"])


@router.post("/v1/customers", status_code=201, responses=responses(problems.EMAIL_TAKEN, problems.INVALID))
async def sign_up(services: CurrentServices, wanted: SignUp) -> SignedUp:
    """Become a customer and get an API token."""
    customer_id, token = await services.customers.sign_up(wanted.email, wanted.name)
    return SignedUp(id=customer_id, token=token)


@router.get("/v1/me", responses=responses(problems.UNAUTHENTICATED))
async def me(customer: CurrentCustomer) -> Me:
    """Say whose token this is."""
    return Me(
        id=customer.id,
        email=customer.email,
        name=customer.name,
        created_at=customer.created_at,
        email_verified_at=customer.email_verified_at,
    )
