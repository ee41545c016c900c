from collections.abc import Callable
from dataclasses import dataclass, replace

from catalogue.schema import Catalogue, Price
from platform_api import problems
from platform_api.billing import queries, slugs
from platform_api.billing.offers import Offer, find_offer
from platform_api.billing.portal import PortalService
from platform_api.billing.promo_codes import find_promotion_code
from platform_api.billing.queries import Checkout, Held
from platform_api.billing.reservations import Claim, Reservations
from platform_api.billing.schemas import CheckoutRequest, OpenCheckout
from platform_api.billing.statuses import NEVER_BEGAN, NOT_LIVE, OVER
from platform_api.customers.queries import Customer
from platform_api.database import Pool, customer_transaction, transaction
from platform_api.problems import Problem
from platform_api.stripe_gateway import CustomerGoneError, SessionRequest, StripeGateway
from platform_api.stripe_objects import Session, StripeSubscription


@dataclass(frozen=True, slots=True)
class Terms:
    """What a session sells beyond what its checkout says; the promotion code is Stripe's id of it."""

    price: Price
    trial_days: int
    promotion_code: str | None


@dataclass(frozen=True, slots=True)
class BillingService:
    """How a plan is bought: a checkout of ours holds the name, a session of Stripe's takes the money."""

    pool: Pool
    catalogue: Catalogue
    stripe: StripeGateway
    reservations: Reservations
    portal: PortalService
    public_url: str
    url_of: Callable[[str], str]

    async def open_checkout(self, customer: Customer, request: CheckoutRequest) -> OpenCheckout:
        """Return where `customer` goes on to get what they request.

        That is Stripe's page to pay on; who subscribes to the product already gets the billing portal, where
        the plan is changed, and who asks for a free plan has it, so they get their instance's address.

        Raises:
            Problem: 400, not on sale, or not with that promotion code; 403, free, but for a verified address
                only; 409, name or plan not to be had; 502 or 503, Stripe will not.
        """
        offer = find_offer(self.catalogue, request.product, request.plan, request.interval)
        if request.slug is not None and slugs.is_reserved(request.slug):
            raise Problem(problems.SLUG_RESERVED, f"Choose another name than '{request.slug}'.")
        history = await self._history(customer, offer.product.product)
        live = next((one for one in history if one.status not in NOT_LIVE), None)
        over = frozenset(one.id for one in history if one.status in OVER)
        claim = Claim(customer, offer, request.slug, over)
        if offer.price is None:
            return await self._subscribe(claim, request, live)
        if live is not None:
            return await self._open_portal(customer, offer, live.id)
        code = None
        if request.promo_code is not None:
            code = await find_promotion_code(self.stripe, request.promo_code, customer.stripe_customer_id)
        taken = await self.reservations.take(replace(claim, promo_code=code.code if code else None))
        if isinstance(taken, Held):
            return await self._open_portal(customer, offer, taken.id)
        # Whoever had a trial, or could have had one, does not get another by coming back.
        is_new = all(one.status in NEVER_BEGAN for one in history)
        terms = Terms(offer.price, offer.plan.trial_days if is_new else 0, code.id if code else None)
        url = taken.url or await self._open_session(customer, taken, terms)
        return OpenCheckout(
            kind="checkout", id=taken.id, url=url, slug=taken.slug, expires_at=taken.expires_at
        )

    async def _open_portal(self, customer: Customer, offer: Offer, subscription_id: str) -> OpenCheckout:
        url = await self.portal.open(customer, offer.product.product, is_live=True)
        async with customer_transaction(self.pool, customer.id) as conn:
            slug = await queries.slug_of_subscription(conn, subscription_id)
        return OpenCheckout(kind="portal", id=subscription_id, url=url, slug=slug, expires_at=None)

    async def _subscribe(self, claim: Claim, request: CheckoutRequest, live: Held | None) -> OpenCheckout:
        """Give the customer the free plan that `claim` is for."""
        if claim.customer.email_verified_at is None:
            raise Problem(
                problems.EMAIL_UNVERIFIED,
                f"A free plan is for verified addresses: ask us to verify {claim.customer.email}, then try"
                " again.",
            )
        if request.promo_code is not None:
            raise Problem(problems.PROMO_CODE, "A free plan needs no promotion code: leave it out.")
        taken = live or await self.reservations.take(claim)
        if isinstance(taken, Held):
            raise await self._subscribed(claim, taken)
        return OpenCheckout(
            kind="instance",
            id=taken.id,
            url=self.url_of(taken.slug),
            slug=taken.slug,
            expires_at=None,
        )

    async def _subscribed(self, claim: Claim, live: Held) -> Problem:
        if live.source == "stripe":
            return Problem(
                problems.ALREADY_SUBSCRIBED,
                f"You pay for {claim.product}: POST /v1/billing/portal says where to change or cancel that."
                " Its instance is kept, and comes back on the free plan once it has ended.",
            )
        async with customer_transaction(self.pool, claim.customer.id) as conn:
            slug = await queries.slug_of_subscription(conn, live.id)
        has = f"Your instance is '{slug}', at {self.url_of(slug)}" if slug else "Your instance is being made"
        return Problem(problems.ALREADY_SUBSCRIBED, f"You have {claim.product} for free already. {has}.")

    async def _history(self, customer: Customer, product: str) -> list[Held]:
        """The customer's subscriptions to `product` that are Stripe's, over or not, as we or it know them.

        Stripe is asked because its events may be late or lost. What it says is over never comes back, so that
        is believed; else one that either of us takes to be live is.
        """
        async with customer_transaction(self.pool, customer.id) as conn:
            held = await queries.held_subscriptions(conn, customer.id, product)
        known = {one.id: one for one in held if one.source == "stripe"}
        account = customer.stripe_customer_id
        theirs = [
            Held(one.id, one.status, "stripe")
            for one in (await self.stripe.subscriptions(account) if account else ())
            if one.id in known or self._sells(product, one)
        ]
        ended = {one.id for one in theirs if one.status in OVER}
        return theirs + [one for one in known.values() if one.id not in ended]

    def _sells(self, product: str, found: StripeSubscription) -> bool:
        priced = (
            self.catalogue.sold_by(price.id, price.lookup_key, price.made_for, price.interval)
            for price in found.prices
        )
        return any(one is not None and one.product.product == product for one in priced)

    async def _open_session(self, customer: Customer, checkout: Checkout, terms: Terms) -> str:
        try:
            session = await self._create_session(customer, checkout, terms)
        except Problem:
            # Even if Stripe did open a session, nobody has learnt its address, so nobody can pay it; but for
            # the one that the same request, sent twice, recorded meanwhile.
            await self.reservations.close(checkout)
            raise
        if session.url is None:
            raise Problem(problems.BILLING_REFUSED, "This checkout is over; start another.")
        async with transaction(self.pool) as conn:
            recorded = await queries.record_session(conn, checkout.id, session.id, session.url)
        if not recorded:
            await self.stripe.end_session(session.id)
            raise Problem(problems.CHECKOUT_SUPERSEDED, "Finish or repeat one checkout at a time.")
        return session.url

    async def _create_session(self, customer: Customer, checkout: Checkout, terms: Terms) -> Session:
        account = customer.stripe_customer_id
        request = SessionRequest(
            id=checkout.id,
            customer_id=customer.id,
            stripe_customer_id=account or await self._new_stripe_customer(customer, checkout),
            price=terms.price,
            trial_days=terms.trial_days,
            promotion_code=terms.promotion_code,
            success_url=f"{self.public_url}/checkout/paid",
            cancel_url=f"{self.public_url}/checkout/left",
            expires_at=checkout.expires_at,
        )
        try:
            return await self.stripe.create_session(request)
        except CustomerGoneError:
            account = await self._new_stripe_customer(customer, checkout)
            return await self.stripe.create_session(replace(request, stripe_customer_id=account))

    async def _new_stripe_customer(self, customer: Customer, checkout: Checkout) -> str:
        made = await self.stripe.create_customer(customer, checkout.id)
        async with transaction(self.pool) as conn:
            return await queries.record_stripe_customer(conn, customer, made)
