"""What tests may do that Stripe does not: faults, deliveries, any subscription status. Under /_sandbox."""

import asyncio
from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.stripe_api.billing.dunning import Settings, settings_in, stored_settings
from sandbox.stripe_api.billing.forcing import forced
from sandbox.stripe_api.errors import ApiError
from sandbox.stripe_api.ledger import Ledger, new_id
from sandbox.stripe_api.objects import Cause, Json
from sandbox.stripe_api.operation import Change, Moment
from sandbox.stripe_api.resources.disputes import dispute
from sandbox.stripe_api.resources.payment_intents import authenticated
from sandbox.stripe_api.resources.subscription_params import Status
from sandbox.stripe_api.timekeeper import catch_up
from sandbox.stripe_api.timetable import DAY
from sandbox.stripe_api.web import BodyTooLargeError, base_url, read_body
from sandbox.stripe_api.webhooks.faults import Faults
from sandbox.stripe_api.webhooks.signature import with_new_secret

M = TypeVar("M", bound=BaseModel)


LONGEST_WAIT = 60.0
LONGEST_ADVANCE = 10 * 366 * DAY


class StatusChange(BaseModel):
    """The status to force."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    status: Status


class Authentication(BaseModel):
    """What a card's holder does when asked whether it is them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    outcome: Literal["failed", "succeeded"] = "succeeded"


class Complaint(BaseModel):
    """Why a card's holder disputes a charge."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reason: Literal["duplicate", "fraudulent", "general", "product_not_received", "subscription_canceled"] = (
        "fraudulent"
    )


class Advance(BaseModel):
    """How far to put the sandbox's time forward; it never goes back."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    advance_seconds: Annotated[int, Field(ge=0, le=LONGEST_ADVANCE)]


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
            Route("/_sandbox/clock", self._show_clock, methods=["GET"]),
            Route("/_sandbox/clock", self._advance, methods=["POST"]),
            Route("/_sandbox/settings", self._show_settings, methods=["GET"]),
            Route("/_sandbox/settings", self._set_settings, methods=["POST"]),
            Route("/_sandbox/deliveries", self._deliveries, methods=["GET"]),
            Route("/_sandbox/idle", self._idle, methods=["GET"]),
            Route("/_sandbox/webhook_endpoints/{endpoint}/roll_secret", self._roll_secret, methods=["POST"]),
            Route("/_sandbox/events/{event}/resend", self._resend, methods=["POST"]),
            Route("/_sandbox/subscriptions/{subscription}", self._force, methods=["POST"]),
            Route("/_sandbox/payment_intents/{intent}/authenticate", self._authenticate, methods=["POST"]),
            Route("/_sandbox/charges/{charge}/dispute", self._dispute, methods=["POST"]),
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
            moment = Moment(int(self.ledger.clock()), new_id, base_url(request))
            change = forced(subscription, wanted.status, self.ledger.store, moment)
            self.ledger.commit(change, Cause())
        return JSONResponse(change.answer)

    async def _authenticate(self, request: Request) -> Response:
        wanted = await _body(request, Authentication)
        if isinstance(wanted, Response):
            return wanted
        with self.ledger.transaction():
            intent = self._found("payment_intent", request.path_params["intent"])
            if intent is None or intent["status"] != "requires_action":
                return _refusal(404, "There is no such payment intent that waits for authentication.")
            passed = wanted.outcome == "succeeded"
            change = authenticated(intent, self.ledger.store, self._moment(), passed=passed)
            self.ledger.commit(change, Cause())
        return JSONResponse(change.answer)

    async def _dispute(self, request: Request) -> Response:
        wanted = await _body(request, Complaint)
        if isinstance(wanted, Response):
            return wanted
        with self.ledger.transaction():
            charge = self._found("charge", request.path_params["charge"])
            if charge is None:
                return _refusal(404, "There is no such charge.")
            try:
                change = dispute(charge, wanted.reason, self.ledger.store, self._moment())
            except ApiError as error:
                return _refusal(409, str(error))
            self.ledger.commit(change, Cause())
        return JSONResponse(change.answer)

    def _moment(self) -> Moment:
        return Moment(int(self.ledger.clock()), new_id, "")

    async def _show_clock(self, _: Request) -> Response:
        return JSONResponse({"now": int(self.ledger.clock())})

    async def _advance(self, request: Request) -> Response:
        """Put the sandbox's time forward, and let happen what is due by then."""
        wanted = await _body(request, Advance)
        if isinstance(wanted, Response):
            return wanted
        with self.ledger.transaction():
            self.ledger.advance(wanted.advance_seconds)
        await catch_up(self.ledger, base_url(request))
        return JSONResponse({"now": int(self.ledger.clock())})

    async def _show_settings(self, _: Request) -> Response:
        return JSONResponse(settings_in(self.ledger.store).model_dump())

    async def _set_settings(self, request: Request) -> Response:
        """Those named change, the others stay."""
        given = await _body(request, Settings)
        if isinstance(given, Response):
            return given
        changes = given.model_dump(include=given.model_fields_set)
        with self.ledger.transaction():
            settings = settings_in(self.ledger.store).model_copy(update=changes)
            self.ledger.store.put(stored_settings(settings))
        return JSONResponse(settings.model_dump())

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
