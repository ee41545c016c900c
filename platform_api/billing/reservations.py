"""Who may have a name: an open checkout holds it, from before it can be paid until an instance has it."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from platform_api import problems
from platform_api.billing import queries, slugs
from platform_api.billing.offers import Offer
from platform_api.billing.queries import Checkout, Held, KeptInstance
from platform_api.billing.statuses import NOT_LIVE
from platform_api.customers.queries import Customer
from platform_api.database import Connection, Pool, transaction
from platform_api.problems import Problem
from platform_api.stripe_gateway import StripeGateway
from provisioner.contract.ids import FREE_PREFIX, new_id
from provisioner.contract.queue import Kind, enqueue

# Stripe takes 30 minutes to 24 hours from the moment its session is made.
_LIFETIME = timedelta(minutes=60)
# A checkout that has no session after this long is left over from a process that died on the way to one:
# the calls in between are bounded to less.
_ABANDONED_AFTER = timedelta(minutes=2)
_ATTEMPTS = 4


@dataclass(frozen=True, slots=True)
class Claim:
    """What a customer wants to buy, and the name it should have; without one it gets a fitting one.

    `over` are Stripe's subscriptions of theirs to this product that have ended for good, known here or not.
    """

    customer: Customer
    offer: Offer
    slug: str | None
    over: frozenset[str]
    promo_code: str | None = None

    @property
    def product(self) -> str:
        """The product's name."""
        return self.offer.product.product


@dataclass(frozen=True, slots=True)
class Reservations:
    """Opens checkouts, at most one for each customer and product; a free plan's is a subscription at once."""

    pool: Pool
    stripe: StripeGateway

    async def take(self, claim: Claim) -> Checkout | Held:
        """Return an open checkout for `claim`, or the live subscription that leaves nothing to buy.

        Asking again on the same terms gives the same, asking for something else ends the one before.

        Raises:
            Problem: 409, the name is not to be had; 502 or 503, Stripe will not say what became of another.
        """
        for _ in range(_ATTEMPTS):
            found = await self._reserve(claim)
            if found is None:
                continue
            if isinstance(found, Held) or (_is_for(found, claim) and await self._is_open(found)):
                return found
            if (paid := await self._release(found, claim)) is not None:
                return paid
        raise Problem(problems.CHECKOUT_SUPERSEDED, "Finish or repeat one checkout at a time.")

    async def close(self, checkout: Checkout) -> None:
        """Close a checkout, which frees its name, if it still is as it was read."""
        async with transaction(self.pool) as conn:
            await queries.close_checkout(conn, checkout)

    async def _reserve(self, claim: Claim) -> Checkout | Held | None:
        """Open a checkout, or return what stands in its way; None: something did, but has gone."""
        async with transaction(self.pool) as conn:
            await queries.lock_customer(conn, claim.customer.id)
            if (live := await _live(conn, claim)) is not None:
                return live
            kept = await _kept(conn, claim)
            mine = await queries.open_checkout(conn, claim.customer.id, claim.product)
            if mine is not None:
                return mine
            wanted = _new_checkout(claim, kept)
            if not await queries.insert_checkout(conn, wanted):
                return await queries.slug_holder(conn, wanted.slug)
            # Asked after the insert, which waited for whoever was turning a checkout into an instance.
            if kept is None and await queries.is_slug_in_use(conn, wanted.slug):
                raise _taken(wanted.slug)
            if claim.offer.price is None:
                await _subscribe(conn, wanted)
            return wanted

    async def _is_open(self, checkout: Checkout) -> bool:
        """Whether Stripe has not paid or expired it meanwhile, or it has no session yet to ask for."""
        if checkout.stripe_session_id is None or checkout.id.startswith(FREE_PREFIX):
            return True
        return (await self.stripe.session(checkout.stripe_session_id)).status == "open"

    async def _release(self, held: Checkout, claim: Claim) -> Held | None:
        """Close `held` if it may be: one that `claim` replaces, or one that is over.

        Whether it is over is for Stripe to say: a paid one keeps its name until the instance has it.

        Returns:
            What was bought with it, if it turns out that the customer has paid it.

        Raises:
            Problem: 409, it holds on.
        """
        now = datetime.now(UTC)
        own = (held.customer_id, held.product) == (claim.customer.id, claim.product)
        if held.id.startswith(FREE_PREFIX):
            raise _being_made(held.slug) if own else _taken(held.slug)
        if held.stripe_session_id is None:
            if not own and held.created_at + _ABANDONED_AFTER >= now:
                raise _taken(held.slug)
            await self.close(held)
            return None
        if not own and held.expires_at > now:
            raise _taken(held.slug)
        ask = self.stripe.end_session if own else self.stripe.session
        session = await ask(held.stripe_session_id)
        if session.status == "expired" or (own and session.subscription in claim.over):
            await self.close(held)
            return None
        if own and session.status == "complete":
            return Held(session.subscription or held.id, "active", "stripe")
        raise _taken(held.slug)


async def _live(conn: Connection, claim: Claim) -> Held | None:
    """The subscription that leaves nothing to buy; to who buys, a free one does not count."""
    held = await queries.held_subscriptions(conn, claim.customer.id, claim.product)
    live = [one for one in held if one.status not in NOT_LIVE and one.id not in claim.over]
    counting = live if claim.offer.price is None else [one for one in live if one.source == "stripe"]
    return max(counting, key=lambda one: one.source == "stripe", default=None)


def _new_checkout(claim: Claim, kept: KeptInstance | None) -> Checkout:
    now = datetime.now(UTC)
    slug = kept.slug if kept else claim.slug or slugs.generate(claim.customer.name)
    free_id = new_id(FREE_PREFIX) if claim.offer.price is None else None
    return Checkout(
        id=free_id or new_id("chk"),
        customer_id=claim.customer.id,
        product=claim.product,
        plan=claim.offer.plan_name,
        interval=claim.offer.interval,
        slug=slug,
        promo_code=claim.promo_code,
        stripe_session_id=free_id,
        url=None,
        expires_at=now + _LIFETIME,
        created_at=now,
    )


async def _kept(conn: Connection, claim: Claim) -> KeptInstance | None:
    """The customer's instance that a new subscription brings back: the one named, else the newest.

    Raises:
        Problem: 409, another name than it has is wanted.
    """
    kept = await queries.kept_instances(conn, claim.customer.id, claim.product)
    if not kept or claim.slug is None:
        return next(iter(kept), None)
    for one in kept:
        if one.slug == claim.slug:
            return one
    raise Problem(
        problems.INSTANCE_KEPT,
        f"Your instance {kept[0].id} of {claim.product} comes back with all its data, under its name"
        f" '{kept[0].slug}': ask for that name or for none.",
    )


async def _subscribe(conn: Connection, checkout: Checkout) -> None:
    await queries.insert_free_subscription(
        conn, checkout.id, checkout.customer_id, checkout.product, checkout.plan
    )
    await enqueue(conn, Kind.SUBSCRIPTION, checkout.id)


def _is_for(checkout: Checkout, claim: Claim) -> bool:
    offer = claim.offer
    asked = (claim.customer.id, claim.product, offer.plan_name, offer.interval, claim.promo_code)
    held = (checkout.customer_id, checkout.product, checkout.plan, checkout.interval, checkout.promo_code)
    return held == asked and claim.slug in (None, checkout.slug) and _is_current(checkout)


def _is_current(checkout: Checkout) -> bool:
    """Whether there is time left to pay; one without a session must leave Stripe its 30 minutes."""
    spare = timedelta(0) if checkout.stripe_session_id else timedelta(minutes=31)
    return checkout.expires_at > datetime.now(UTC) + spare


def _taken(slug: str) -> Problem:
    return Problem(problems.SLUG_TAKEN, f"Somebody has '{slug}'; choose another name.")


def _being_made(slug: str) -> Problem:
    return Problem(
        problems.CHECKOUT_SUPERSEDED,
        f"Your free instance '{slug}' is just being made; ask again in a moment.",
        retry_after=5,
    )
