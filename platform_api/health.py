import yaml
from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel

from platform_api import problems
from platform_api.database import connect
from platform_api.dependencies import CurrentServices
from platform_api.problems import responses

router = APIRouter()


class Health(BaseModel):
    """All is well."""

    status: str = "ok"


@router.get("/healthz", tags=["operation"], responses=responses())
async def healthz() -> Health:
    """Say that the process answers, whatever it depends on does."""
    return Health()


@router.get("/readyz", tags=["operation"], responses=responses(problems.DATABASE_UNAVAILABLE))
async def readyz(services: CurrentServices) -> Health:
    """Say whether requests can be served: 503 while the database does not answer."""
    async with connect(services.pool) as conn:
        await conn.execute("SELECT 1")
    return Health()


@router.get("/openapi.yaml", include_in_schema=False)
async def openapi_yaml(request: Request) -> Response:
    """Return the OpenAPI document as YAML."""
    return Response(to_yaml(request.app.openapi()), media_type="application/yaml")


def to_yaml(document: object) -> str:
    """Return a JSON-like document as YAML, in its own order."""
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110)
