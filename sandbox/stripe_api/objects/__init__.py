"""Stripe's objects as of API_VERSION, made new. Field by field as Stripe's OpenAPI document lists them.

Stored objects name others by id. What an answer shows of them (a subscription item's price, a session's
line items) is filled in by `present`.
"""

from sandbox.stripe_api.objects.catalogue import (
    Line,
    price,
    product,
)
from sandbox.stripe_api.objects.charges import (
    EVIDENCE,
    charge,
    dispute,
    payment_intent,
    refund,
)
from sandbox.stripe_api.objects.checkout import (
    checkout_session,
    customer_details,
    session_item,
)
from sandbox.stripe_api.objects.common import (
    API_VERSION,
    Json,
    list_of,
    public,
)
from sandbox.stripe_api.objects.coupons import (
    coupon,
    discount,
    promotion_code,
)
from sandbox.stripe_api.objects.customers import (
    customer,
)
from sandbox.stripe_api.objects.events import (
    Cause,
    event,
    webhook_endpoint,
)
from sandbox.stripe_api.objects.invoices import (
    Bill,
    BillingReason,
    BillLine,
    invoice,
    invoice_item,
    invoice_line,
    invoice_payment,
    waiting_line,
)
from sandbox.stripe_api.objects.payment_methods import (
    card,
    payment_method,
)
from sandbox.stripe_api.objects.portal import (
    portal_configuration,
    portal_session,
)
from sandbox.stripe_api.objects.subscriptions import (
    INCOMPLETE_SECONDS,
    Period,
    subscription,
    subscription_item,
)
from sandbox.stripe_api.objects.test_clocks import (
    test_clock,
)

__all__ = [
    "API_VERSION",
    "EVIDENCE",
    "INCOMPLETE_SECONDS",
    "Bill",
    "BillLine",
    "BillingReason",
    "Cause",
    "Json",
    "Line",
    "Period",
    "card",
    "charge",
    "checkout_session",
    "coupon",
    "customer",
    "customer_details",
    "discount",
    "dispute",
    "event",
    "invoice",
    "invoice_item",
    "invoice_line",
    "invoice_payment",
    "list_of",
    "payment_intent",
    "payment_method",
    "portal_configuration",
    "portal_session",
    "price",
    "product",
    "promotion_code",
    "public",
    "refund",
    "session_item",
    "subscription",
    "subscription_item",
    "test_clock",
    "waiting_line",
    "webhook_endpoint",
]
