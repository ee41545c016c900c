from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from catalogue.schema import Catalogue, Interval, Plan, Price
from platform_api import problems
from platform_api.billing import queries, slugs
from platform_api.billing.queries import Checkout
from platform_api.billing.schemas import CheckoutRequest
from platform_api.customers.queries import Customer
from platform_api.database import Pool, transaction
from platform_api.problems import Problem
from platform_api.stripe_gateway import Session, SessionRequest, StripeGateway
from provisioner.contract.ids import new_id

# Stripe takes 30 minutes to 24 hours from the moment its session is made.
_LIFETIME = timedelta(minutes=60)
# A checkout that has no session after this long is left over from a process that died on the way to one:
# the calls in between are bounded to less.
_ABANDONED_AFTER = timedelta(minutes=2)
_ATTEMPTS = 4


@dataclass(frozen=True, slots=True)
class Offer:
    """A plan as it is sold at one interval."""

    product: str
    plan_name: str
    interval: Interval
    plan: Plan
    price: Price


@dataclass(frozen=True, slots=True)
class BillingService:
    """How a plan is bought: a checkout of ours holds the name, a session of Stripe's takes the money."""

    pool: Pool
    catalogue: Catalogue
    stripe: StripeGateway
    public_url: str

    async def open_checkout(self, customer: Customer, request: CheckoutRequest) -> tuple[Checkout, str]:
        """Return an open checkout for what `customer` requests, and the page to pay it on.

        A customer has at most one open checkout per product: asking again for the same gives the same, asking
        for something else ends the one before.

        Raises:
            Problem: 400, not on sale; 409, name or product not to be had; 502 or 503, Stripe will not.
        """
        offer = find_offer(self.catalogue, request)
        if request.slug is not None and slugs.is_reserved(request.slug):
            raise Problem(problems.SLUG_RESERVED, f"Choose another name than '{request.slug}'.")
        for _ in range(_ATTEMPTS):
            wanted = _new_checkout(customer, offer, request.slug)
            found = await self._reserve(wanted)
            if found is None:
                continue
            if found.customer_id == customer.id and _same_terms(found, request) and _is_current(found):
                return found, found.url or await self._open_session(customer, offer, found)
            await self._release(found, wanted)
        raise Problem(problems.CHECKOUT_SUPERSEDED, "Finish or repeat one checkout at a time.")

    async def _reserve(self, wanted: Checkout) -> Checkout | None:
        """Open `wanted`, or return the open checkout that stands in its way; None: it did, but has gone."""
        async with transaction(self.pool) as conn:
            await queries.lock_customer(conn, wanted.customer_id)
            if await queries.has_live_subscription(conn, wanted.customer_id, wanted.product):
                raise Problem(
                    problems.ALREADY_SUBSCRIBED,
                    f"You subscribe to {wanted.product} already: change that subscription instead.",
                )
            mine = await queries.open_checkout(conn, wanted.customer_id, wanted.product)
            if mine is not None:
                return mine
            if not await queries.insert_checkout(conn, wanted):
                return await queries.slug_holder(conn, wanted.slug)
            # Asked after the insert, which waited for whoever was turning a checkout into an instance.
            if await queries.is_slug_in_use(conn, wanted.slug):
                raise _taken(wanted.slug)
            return wanted

    async def _open_session(self, customer: Customer, offer: Offer, checkout: Checkout) -> str:
        try:
            session = await self.stripe.create_session(
                SessionRequest(
                    id=checkout.id,
                    customer_id=customer.id,
                    stripe_customer_id=await self._stripe_customer(customer),
                    price_id=offer.price.id or await self.stripe.price(offer.price.lookup_key or ""),
                    trial_days=offer.plan.trial_days,
                    success_url=f"{self.public_url}/checkout/paid",
                    cancel_url=f"{self.public_url}/checkout/left",
                    expires_at=checkout.expires_at,
                )
            )
        except Problem:
            # Even if Stripe did open a session, nobody has learnt its address, so nobody can pay it.
            await self._close(checkout)
            raise
        if session.url is None:
            raise Problem(problems.BILLING_REFUSED, "This checkout is over; start another.")
        async with transaction(self.pool) as conn:
            recorded = await queries.record_session(conn, checkout.id, session.id, session.url)
        if not recorded:
            await self.stripe.end_session(session.id)
            raise Problem(problems.CHECKOUT_SUPERSEDED, "Finish or repeat one checkout at a time.")
        return session.url

    async def _stripe_customer(self, customer: Customer) -> str:
        if customer.stripe_customer_id is not None:
            return customer.stripe_customer_id
        made = await self.stripe.create_customer(customer.id, customer.email, customer.name)
        async with transaction(self.pool) as conn:
            await queries.record_stripe_customer(conn, customer.id, made)
        return made

    async def _release(self, held: Checkout, wanted: Checkout) -> None:
        """Close `held` if it may be: one that `wanted` replaces, or one that is over.

        Whether it is over is for Stripe to say: a paid one keeps its name until the instance has it.

        Raises:
            Problem: 409, it holds on.
        """
        now = datetime.now(UTC)
        own = (held.customer_id, held.product) == (wanted.customer_id, wanted.product)
        if held.stripe_session_id is None:
            if own or held.created_at + _ABANDONED_AFTER < now:
                await self._close(held)
                return
            raise _taken(held.slug)
        if not own and held.expires_at > now:
            raise _taken(held.slug)
        ask = self.stripe.end_session if own else self.stripe.session
        session: Session = await ask(held.stripe_session_id)
        if session.status == "expired":
            await self._close(held)
        elif own and session.status == "complete":
            raise Problem(
                problems.ALREADY_SUBSCRIBED,
                f"Your payment for {held.product} has arrived; look at your instances.",
            )
        else:
            raise _taken(held.slug)

    async def _close(self, checkout: Checkout) -> None:
        async with transaction(self.pool) as conn:
            await queries.close_checkout(conn, checkout.id)


def find_offer(catalogue: Catalogue, request: CheckoutRequest) -> Offer:
    """Return what `request` names.

    Raises:
        Problem: 400, it is not on sale; the detail names what is.
    """
    product = catalogue.products.get(request.product)
    if product is None:
        known = ", ".join(sorted(catalogue.products))
        raise Problem(problems.UNKNOWN_PLAN, f"There is no product '{request.product}'. Products: {known}.")
    plan = product.plans.get(request.plan)
    if plan is None:
        known = ", ".join(sorted(product.plans))
        raise Problem(
            problems.UNKNOWN_PLAN, f"{request.product} has no plan '{request.plan}'. Plans: {known}."
        )
    price = plan.prices.get(request.interval)
    if price is None:
        known = ", ".join(sorted(plan.prices)) or "none, ask us for an offer"
        raise Problem(
            problems.UNKNOWN_PLAN,
            f"{request.product} {request.plan} is not sold by the {request.interval}. Intervals: {known}.",
        )
    return Offer(request.product, request.plan, request.interval, plan, price)


def _new_checkout(customer: Customer, offer: Offer, slug: str | None) -> Checkout:
    now = datetime.now(UTC)
    return Checkout(
        id=new_id("chk"),
        customer_id=customer.id,
        product=offer.product,
        plan=offer.plan_name,
        interval=offer.interval,
        slug=slug or slugs.generate(customer.name),
        stripe_session_id=None,
        url=None,
        expires_at=now + _LIFETIME,
        created_at=now,
    )


def _same_terms(checkout: Checkout, request: CheckoutRequest) -> bool:
    asked = (request.product, request.plan, request.interval, request.slug or checkout.slug)
    return (checkout.product, checkout.plan, checkout.interval, checkout.slug) == asked


def _is_current(checkout: Checkout) -> bool:
    """Whether there is time left to pay; one without a session must leave Stripe its 30 minutes."""
    spare = timedelta(0) if checkout.url else timedelta(minutes=31)
    return checkout.expires_at > datetime.now(UTC) + spare


def _taken(slug: str) -> Problem:
    return Problem(problems.SLUG_TAKEN, f"Somebody has '{slug}'; choose another name.")
