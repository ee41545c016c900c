"""What somebody needs to know to use a stand-in that listens."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from sandbox.stripe_api.cards import CARDS, TestCard

KEY = "sk_test_sandbox"
"""Any key that begins with `sk_test_` or `rk_test_` does."""


@dataclass(frozen=True)
class Guide:
    """How to use it.

    Attributes:
        url: the API's address.
        key: a secret key that it takes.
        clients: by language, the line that points Stripe's official client at it.
        cards: by number, what comes of paying with it.
        controls: by call, what a test may do that Stripe does not.
        differences: by subject, what is known to be otherwise at Stripe.
    """

    url: str
    key: str
    clients: Mapping[str, str]
    cards: Mapping[str, str]
    controls: Mapping[str, str]
    differences: Mapping[str, str]


def guide(url: str) -> Guide:
    """The guide to the stand-in at `url`."""
    cards = {_spaced(card.number): _behaviour(card) for card in CARDS}
    controls = {call.replace("/", f"{url}/", 1): what for call, what in CONTROLS.items()}
    return Guide(url, KEY, _clients(url), cards, controls, DIFFERENCES)


def _clients(url: str) -> dict[str, str]:
    at = urlsplit(url)
    return {
        "curl": f"curl {url}/v1/customers -u {KEY}: -d email=ada@example.com",
        "Python": f'stripe.StripeClient("{KEY}", base_addresses={{"api": "{url}"}})',
        "Node": f'new Stripe("{KEY}", {{ protocol: "http", host: "{at.hostname}", port: {at.port} }})',
        "Ruby": f'Stripe.api_key = "{KEY}"; Stripe.api_base = "{url}"',
        "PHP": f'new \\Stripe\\StripeClient(["api_key" => "{KEY}", "api_base" => "{url}"])',
        "Java": f'StripeClient.builder().setApiKey("{KEY}").setApiBase("{url}").build()',
        ".NET": f'new StripeClient("{KEY}", apiBase: "{url}")',
        "Go": "stripe.SetBackend(stripe.APIBackend, stripe.GetBackendWithConfig(stripe.APIBackend,"
        f' &stripe.BackendConfig{{URL: stripe.String("{url}")}}))',
    }


def _spaced(number: str) -> str:
    if len(number) == 15:
        return f"{number[:4]} {number[4:10]} {number[10:]}"
    return " ".join(number[start : start + 4] for start in range(0, len(number), 4))


def _behaviour(card: TestCard) -> str:
    if card.refusal is not None and card.attaches:
        return f"can be kept, and then fails: {card.refusal.message}"
    if card.refusal is not None:
        return card.refusal.message
    if card.dispute is not None:
        return f"pays, and disputes the charge: {card.dispute.replace('_', ' ')}"
    match card.authentication:
        case "always":
            return "wants authentication for every payment"
        case "until_set_up":
            return "wants authentication the first time"
        case "never":
            return f"pays ({card.brand})"


CONTROLS: Mapping[str, str] = {
    "GET /_sandbox/health": "whether it runs",
    "GET /_sandbox/clock": "the sandbox's time",
    "POST /_sandbox/clock": '{"advance_seconds": 86400}: time passes, and what is due happens',
    "GET /_sandbox/settings": "how failed renewals are treated",
    "POST /_sandbox/settings": "change that; those not named stay",
    "GET /_sandbox/faults": "the faults in force",
    "POST /_sandbox/faults": "duplicate, reorder, shuffle_seconds, delay_seconds, drop, tamper, chance, seed:"
    " of webhooks; rate_limit, fail, cut, hang: of the next n API calls",
    "DELETE /_sandbox/faults": "no faults any more",
    "GET /_sandbox/deliveries": "webhooks and their attempts; ?event=evt_…&state=pending",
    "GET /_sandbox/idle": "answers once no webhook is owed; ?timeout_seconds=10&within_seconds=0",
    "POST /_sandbox/webhook_endpoints/{endpoint}/roll_secret": '{"overlap_seconds": 3600}: a new secret',
    "POST /_sandbox/events/{event}/resend": "deliver an event again",
    "POST /_sandbox/subscriptions/{subscription}": '{"status": "past_due"}: any status at once',
    "POST /_sandbox/payment_intents/{intent}/authenticate": '{"outcome": "failed"}: as its holder does',
    "POST /_sandbox/charges/{charge}/dispute": '{"reason": "fraudulent"}: as the card\'s holder does',
}
"""Every call of the control API."""

DIFFERENCES: Mapping[str, str] = {
    "what there is": "a call that is not there is 404, a parameter that is not there `parameter_unknown`,"
    " never ignored: among them Connect, taxes, SetupIntents, Checkout's setup and embedded modes,"
    " invoices made or sent by hand, credit notes, quotes, schedules, metered and tiered prices, fractions"
    " of a cent, classic billing mode, `pending_if_incomplete`, a billing cycle anchored at a date,"
    " captures by hand",
    "account": "every key opens the same one; `Stripe-Version` is checked and echoed, and answers are always"
    " of the newest version",
    "lists": "subscriptions and customers on test clocks are listed though no test clock is named; Stripe"
    " lists them only by their clock or, subscriptions, by their customer",
    "search": "finds at once what at Stripe takes up to a minute",
    "limits": "no rate limit unless told to, no least amount of a charge; a test clock has up to three"
    " customers, as at Stripe, and each of them as many subscriptions as they like",
    "webhooks": "a retry comes after 1 s, then 2 s, 4 s and so on; Stripe waits longer. `enabled_events` are"
    " not checked against the types there are, and only what happens here is told: no `invoice.upcoming`,"
    " no `payout.*`",
    "time": "besides test clocks, the whole sandbox can be put forward. Clocks are not deleted after 30 days,"
    " and what lived by a deleted one can still be read",
    "retries": "a failed renewal is tried again after 3, 5 and 7 days unless settings say otherwise; Stripe's"
    " smart retries choose their days",
    "prorations": "credits are counted after the discounts of today, not those of the day the money was paid",
    "trials": "without a card, `pending_setup_intent` is null",
    "cards": "4000 0000 0000 0341 pays the first invoice on the checkout page and fails from then on",
    "money back": "refunds succeed at once; a dispute waits for its answer for ever",
    "portal": "its default configuration offers to cancel now and at the period's end; there are no promotion"
    " codes, no quantities, no `subscription_update_confirm` and no login page",
    "left empty": "`invoice_pdf`, `receipt_url`, `balance_transaction` and what else is null in an answer; a"
    " customer is never `delinquent`",
}
"""What is known to differ from Stripe."""
