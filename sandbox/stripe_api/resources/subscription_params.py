"""What calls about subscriptions may be asked."""

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from sandbox.stripe_api.billing.changing import ItemChange, ProrationBehavior, Terms
from sandbox.stripe_api.billing.discounts import DiscountChoice
from sandbox.stripe_api.billing.payments import Holder
from sandbox.stripe_api.billing.subscribing import MissingPaymentMethod, PaymentBehavior
from sandbox.stripe_api.params import (
    ClearableText,
    DatedListParams,
    Flag,
    FormList,
    ListParams,
    Metadata,
    MetadataChange,
    Nested,
    Params,
    Range,
    Text,
    TimeRange,
    Timestamp,
    unset,
)

MOST_ITEMS = 20
MOST_DISCOUNTS = 20
LONGEST_TRIAL_DAYS = 730
Status = Literal[
    "active", "canceled", "incomplete", "incomplete_expired", "past_due", "paused", "trialing", "unpaid"
]
Quantity = Annotated[int, Field(ge=0, le=999_999)]


def _none(value: object) -> object:
    return {} if value == "" else value


CollectionMethod = Literal["charge_automatically", "send_invoice"]
CancelAt = Annotated[Timestamp | Literal["max_period_end", "min_period_end"] | None, BeforeValidator(unset)]
Discounts = Annotated[
    FormList[DiscountChoice], BeforeValidator(_none), Field(max_length=MOST_DISCOUNTS, default_factory=list)
]


class NewItemParams(Nested):
    """An item of a new subscription."""

    price: Text
    quantity: Quantity = 1
    metadata: Metadata = Field(default_factory=dict)


class InvoiceItemParams(Nested):
    """Something bought once along with a new subscription."""

    price: Text
    quantity: Quantity = 1


class ItemChangeParams(Nested):
    """An item to change (with `id`), to remove (`deleted`) or to add (without `id`)."""

    id: Text | None = None
    price: Text | None = None
    quantity: Quantity | None = None
    deleted: Flag = False
    clear_usage: Flag = False
    metadata: MetadataChange = Field(default_factory=dict)

    def change(self, position: int) -> ItemChange:
        """What it asks for, as the element at `position`."""
        given = self.model_dump(exclude={"clear_usage"})
        return ItemChange(f"items[{position}]", **given)


class CancellationDetails(Nested):
    """What a customer said about leaving."""

    comment: Text | None = None
    feedback: (
        Literal[
            "customer_service",
            "low_quality",
            "missing_features",
            "other",
            "switched_service",
            "too_complex",
            "too_expensive",
            "unused",
        ]
        | None
    ) = None


class _EndBehavior(Nested):
    missing_payment_method: MissingPaymentMethod


class TrialSettings(Nested):
    """What happens when a trial ends."""

    end_behavior: _EndBehavior


class PaymentSettings(Nested):
    """How a subscription's invoices are paid."""

    save_default_payment_method: Literal["off", "on_subscription"] | None = None
    payment_method_types: FormList[Literal["card"]] | None = None


class PauseCollection(Nested):
    """What happens to invoices while nobody collects them."""

    behavior: Literal["keep_as_draft", "mark_uncollectible", "void"]
    resumes_at: Timestamp | None = None


class _BillingMode(Nested):
    type: Literal["flexible"]


class Billed(Params):
    """How what a call changes is billed."""

    payment_behavior: PaymentBehavior = "allow_incomplete"
    proration_behavior: ProrationBehavior = "create_prorations"

    def terms(self) -> Terms:
        """How it is billed and paid."""
        return Terms(self.proration_behavior, self.payment_behavior)


class Attended(Billed):
    """The same, where the card's holder may be away."""

    off_session: Flag = False

    def holder(self) -> Holder:
        """Where the card's holder is."""
        return Holder.AWAY if self.off_session else Holder.PRESENT

    def terms(self) -> Terms:
        """How it is billed and paid."""
        return replace(super().terms(), holder=self.holder())


class Prorated(Billed):
    """The same, where the change may be counted from another time."""

    proration_date: Timestamp | None = None

    def terms(self) -> Terms:
        """How it is billed and paid."""
        return replace(super().terms(), prorated_from=self.proration_date)


class Described(Attended):
    """What a new subscription and a changed one have in common."""

    cancel_at: CancelAt = None
    cancel_at_period_end: Flag = False
    collection_method: Literal["charge_automatically"] = "charge_automatically"
    default_payment_method: ClearableText = None
    description: ClearableText = None
    discounts: Discounts
    payment_settings: PaymentSettings = PaymentSettings()
    trial_end: Timestamp | Literal["now"] | None = None
    trial_settings: TrialSettings | None = None


class SubscriptionCreate(Described):
    """A new subscription."""

    add_invoice_items: Annotated[FormList[InvoiceItemParams], Field(max_length=MOST_ITEMS)] = Field(
        default_factory=list
    )
    customer: Text
    items: Annotated[FormList[NewItemParams], Field(min_length=1, max_length=MOST_ITEMS)]
    billing_mode: _BillingMode = _BillingMode(type="flexible")
    trial_period_days: Annotated[int, Field(ge=0, le=LONGEST_TRIAL_DAYS)] | None = None
    metadata: Metadata = Field(default_factory=dict)


class SubscriptionUpdate(Described, Prorated):
    """An edit."""

    items: Annotated[FormList[ItemChangeParams], Field(max_length=MOST_ITEMS)] = Field(default_factory=list)
    billing_cycle_anchor: Literal["now", "unchanged"] = "unchanged"
    cancellation_details: CancellationDetails = CancellationDetails()
    pause_collection: Annotated[PauseCollection | None, BeforeValidator(unset)] = None
    metadata: MetadataChange = Field(default_factory=dict)


class SubscriptionCancel(Params):
    """An end, now."""

    cancellation_details: CancellationDetails = CancellationDetails()
    invoice_now: Flag = False
    prorate: Flag = False


class SubscriptionResume(Params):
    """An end of a pause: the billing cycle begins anew."""

    billing_cycle_anchor: Literal["now"] = "now"
    proration_behavior: ProrationBehavior = "create_prorations"


class SubscriptionList(DatedListParams):
    """A page of subscriptions: of all but canceled ones unless `status` says otherwise."""

    collection_method: CollectionMethod | None = None
    current_period_end: Range = TimeRange()
    current_period_start: Range = TimeRange()
    customer: Text | None = None
    price: Text | None = None
    status: Status | Literal["all", "ended"] | None = None
    test_clock: Text | None = None


class ItemCreate(Prorated):
    """An item to add to a subscription."""

    subscription: Text
    price: Text
    quantity: Quantity = 1
    metadata: Metadata = Field(default_factory=dict)

    def change(self) -> ItemChange:
        """What it asks for."""
        return ItemChange("", None, self.price, self.quantity, metadata=self.metadata)


class ItemUpdate(Attended, Prorated):
    """An item's edit."""

    price: Text | None = None
    quantity: Quantity | None = None
    metadata: MetadataChange = Field(default_factory=dict)

    def change(self, item_id: str) -> ItemChange:
        """What it asks for."""
        return ItemChange("", item_id, self.price, self.quantity, metadata=self.metadata)


class ItemDelete(Prorated):
    """An item's removal."""

    clear_usage: Flag = False


class ItemList(ListParams):
    """A page of a subscription's items."""

    subscription: Text


class PreviewDetails(Nested):
    """What a subscription would be asked: to change, or, with no subscription named, to begin."""

    items: Annotated[FormList[ItemChangeParams], Field(max_length=MOST_ITEMS)] = Field(default_factory=list)
    billing_cycle_anchor: Literal["now", "unchanged"] = "unchanged"
    cancel_at: CancelAt = None
    cancel_at_period_end: Flag = False
    proration_behavior: ProrationBehavior = "create_prorations"
    proration_date: Timestamp | None = None
    trial_end: Timestamp | Literal["now"] | None = None

    def update(self) -> SubscriptionUpdate:
        """The call that would change it."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        return SubscriptionUpdate.model_construct(self.model_fields_set, **given)


class PreviewCreate(Params):
    """An invoice to look at before it is there."""

    customer: Text | None = None
    preview_mode: Literal["next"] = "next"
    subscription: Text | None = None
    subscription_details: PreviewDetails = PreviewDetails()
