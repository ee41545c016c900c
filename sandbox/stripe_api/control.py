"""What tests may do that Stripe does not: faults, deliveries, any subscription status. Under /_sandbox."""

import asyncio
from dataclasses import dataclass
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.stripe_api.faults import Faults
from sandbox.stripe_api.ledger import Ledger, new_id
from sandbox.stripe_api.objects import Cause, Json
from sandbox.stripe_api.operation import Change
from sandbox.stripe_api.resources.events import with_new_secret
from sandbox.stripe_api.resources.subscriptions import Status, forced
from sandbox.stripe_api.web import BodyTooLargeError, read_body

M = TypeVar("M", bound=BaseModel)


LONGEST_WAIT = 60.0
DAY = 86400


class StatusChange(BaseModel):
    """The status to force."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    status: Status


class SecretRoll(BaseModel):
    """How long the former secret signs beside the new one, seconds of the sandbox clock."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    overlap_seconds: Annotated[int, Field(ge=0, le=7 * DAY)] = DAY


class IdleWait(BaseModel):
    """How long to wait for quiet (real seconds), and for how long it has to last (of the sandbox clock)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    timeout_seconds: Annotated[float, Field(ge=0, le=LONGEST_WAIT)] = 10.0
    within_seconds: Annotated[float, Field(ge=0)] = 0.0


@dataclass(frozen=True)
class Control:
    """The control API over a ledger."""

    ledger: Ledger

    def routes(self) -> list[Route]:
        """Its routes."""
        return [
            Route("/_sandbox/health", self._health, methods=["GET"]),
            Route("/_sandbox/faults", self._show_faults, methods=["GET"]),
            Route("/_sandbox/faults", self._set_faults, methods=["POST"]),
            Route("/_sandbox/faults", self._clear_faults, methods=["DELETE"]),
            Route("/_sandbox/deliveries", self._deliveries, methods=["GET"]),
            Route("/_sandbox/idle", self._idle, methods=["GET"]),
            Route("/_sandbox/webhook_endpoints/{endpoint}/roll_secret", self._roll_secret, methods=["POST"]),
            Route("/_sandbox/events/{event}/resend", self._resend, methods=["POST"]),
            Route("/_sandbox/subscriptions/{subscription}", self._force, methods=["POST"]),
        ]

    async def _health(self, _: Request) -> Response:
        return JSONResponse({"ok": True})

    async def _show_faults(self, _: Request) -> Response:
        return JSONResponse(self.ledger.outbox.faults().model_dump())

    async def _set_faults(self, request: Request) -> Response:
        """Those named change, the others stay."""
        given = await _body(request, Faults)
        if isinstance(given, Response):
            return given
        with self.ledger.transaction():
            changes = given.model_dump(include=given.model_fields_set)
            faults = self.ledger.outbox.faults().model_copy(update=changes)
            self.ledger.outbox.set_faults(faults)
        return JSONResponse(faults.model_dump())

    async def _clear_faults(self, _: Request) -> Response:
        with self.ledger.transaction():
            self.ledger.outbox.set_faults(Faults())
        return JSONResponse(Faults().model_dump())

    async def _deliveries(self, request: Request) -> Response:
        wanted = request.query_params
        listed = self.ledger.outbox.listed(wanted.get("event"), wanted.get("state"))
        return JSONResponse({"now": self.ledger.clock(), "data": listed})

    async def _idle(self, request: Request) -> Response:
        """Answer once no delivery is under way, due, or due within the time given."""
        try:
            wanted = IdleWait.model_validate(dict(request.query_params))
        except ValidationError as error:
            return _refusal(400, _sentence(error))
        try:
            async with asyncio.timeout(wanted.timeout_seconds):
                await self._quiet(wanted.within_seconds)
        except TimeoutError:
            owed = self.ledger.outbox.owed(self.ledger.clock() + wanted.within_seconds)
            return _refusal(504, f"{owed} deliveries are still owed: GET /_sandbox/deliveries?state=pending.")
        return JSONResponse({"idle": True})

    async def _quiet(self, seconds: float) -> None:
        ring = self.ledger.bell.next_ring()
        while self.ledger.outbox.owed(self.ledger.clock() + seconds):
            await ring.wait()
            ring = self.ledger.bell.next_ring()

    async def _roll_secret(self, request: Request) -> Response:
        wanted = await _body(request, SecretRoll)
        if isinstance(wanted, Response):
            return wanted
        with self.ledger.transaction():
            endpoint = self._found("webhook_endpoint", request.path_params["endpoint"])
            if endpoint is None:
                return _refusal(404, "There is no such webhook endpoint.")
            now = int(self.ledger.clock())
            rolled = with_new_secret(endpoint, new_id("whsec"), now, wanted.overlap_seconds)
            self.ledger.commit(Change(rolled, (rolled,)), Cause())
        return JSONResponse({"secret": rolled["secret"]})

    async def _resend(self, request: Request) -> Response:
        with self.ledger.transaction():
            event = self._found("event", request.path_params["event"])
            if event is None:
                return _refusal(404, "There is no such event.")
            return JSONResponse({"deliveries": self.ledger.resend(event)})

    async def _force(self, request: Request) -> Response:
        wanted = await _body(request, StatusChange)
        if isinstance(wanted, Response):
            return wanted
        with self.ledger.transaction():
            subscription = self._found("subscription", request.path_params["subscription"])
            if subscription is None:
                return _refusal(404, "There is no such subscription.")
            change = forced(subscription, wanted.status, self.ledger.store, int(self.ledger.clock()))
            self.ledger.commit(change, Cause())
        return JSONResponse(change.answer)

    def _found(self, kind: str, object_id: str) -> Json | None:
        candidate = self.ledger.store.find(object_id)
        return candidate if candidate is not None and candidate["object"] == kind else None


async def _body(request: Request, model: type[M]) -> M | Response:
    try:
        return model.model_validate_json(await read_body(request) or b"{}")
    except BodyTooLargeError:
        return _refusal(413, "The body is too large.")
    except ValidationError as error:
        return _refusal(400, _sentence(error))


def _sentence(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, fault['loc'])) or 'body'}: {fault['msg']}" for fault in error.errors()
    )


def _refusal(status: int, sentence: str) -> Response:
    return JSONResponse({"error": sentence}, status)
