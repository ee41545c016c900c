"""E-mail is put into the outbox by the transaction that causes it; `provisioner.mailer` sends it."""

import hashlib
import secrets
from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Any

from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from provisioner.contract.queue import Kind, enqueue
from provisioner.workqueue import WorkItem

PORTAL_TOKEN = "portal_token"  # noqa: S105 -- the name of a field
PORTAL_LINK_LIFE = timedelta(days=30)


class Template(StrEnum):
    """The e-mails there are; each is a folder of `templates/`. Data are texts, dates as `21 November 2026`.

    INSTANCE_READY: title, plan, url.
    TRIAL_ENDING: title, plan, ends_on.
    PAYMENT_FAILED: title, plan, amount, suspended_on.
    SUSPENDED: title, plan, reason, deleted_on ('' when nothing will be deleted).
    DELETION_SOON: title, plan, days, deleted_on.
    DELETED: title, plan, deleted_on.
    OPERATOR_ALERT: what (the subject), sentence, commands (one a line, or '').
    """

    INSTANCE_READY = "instance-ready"
    TRIAL_ENDING = "trial-ending"
    PAYMENT_FAILED = "payment-failed"
    SUSPENDED = "suspended"
    DELETION_SOON = "deletion-soon"
    DELETED = "deleted"
    OPERATOR_ALERT = "operator-alert"


WITH_PORTAL_LINK = frozenset(
    {Template.TRIAL_ENDING, Template.PAYMENT_FAILED, Template.SUSPENDED, Template.DELETION_SOON}
)

_WRITE = """
    INSERT INTO outbox (dedupe_key, customer_id, template, data)
    VALUES (%(dedupe_key)s, %(customer_id)s, %(template)s, %(data)s)
    ON CONFLICT (dedupe_key) DO NOTHING
    RETURNING id
"""

_LINK = """
    INSERT INTO portal_link (token_sha256, customer_id, expires_at)
    VALUES (%s, %s, now() + %s::interval)
"""

_ONLY_FREE = "SELECT bool_and(source = 'free') FROM subscription WHERE customer_id = %s"

# For as long again as a link opens, its reader is told that it no longer does.
_FORGET = "DELETE FROM portal_link WHERE expires_at < now() - %s::interval"

_TEMPLATE = "SELECT template FROM outbox WHERE id = %s"


async def write_email(
    conn: AsyncConnection[Any],
    dedupe_key: str,
    customer_id: str | None,
    template: Template,
    data: Mapping[str, str],
) -> None:
    """Put an e-mail into the outbox, in the caller's transaction.

    Those in WITH_PORTAL_LINK get a link to the customer's billing portal by themselves, unless all they ever
    had is free. Its token stands in the row until the e-mail is sent; after that only its hash is known here.

    Args:
        conn: the transaction that causes it.
        dedupe_key: names the cause; a second e-mail of the same key is not written.
        customer_id: whom it goes to, at the address they have when it is sent; None is the operator.
        template: which e-mail.
        data: what the template needs besides the customer's `name` and the link.
    """
    token = None
    if template in WITH_PORTAL_LINK and not await _has_only_free(conn, customer_id):
        token = secrets.token_urlsafe(32)
    arguments = {
        "dedupe_key": dedupe_key,
        "customer_id": customer_id,
        "template": template,
        "data": Jsonb({**data, PORTAL_TOKEN: token} if token else dict(data)),
    }
    row = await (await conn.execute(_WRITE, arguments)).fetchone()
    if row is None:
        return
    if token:
        digest = hashlib.sha256(token.encode()).digest()
        await conn.execute(_LINK, (digest, customer_id, PORTAL_LINK_LIFE))
    await enqueue(conn, Kind.EMAIL, str(row[0]))


async def _has_only_free(conn: AsyncConnection[Any], customer_id: str | None) -> bool:
    row = await (await conn.execute(_ONLY_FREE, (customer_id,))).fetchone()
    return row is not None and row[0] is True


async def forget_expired_links(conn: AsyncConnection[Any]) -> int:
    """Remove portal links that expired long ago; how many."""
    return (await conn.execute(_FORGET, (PORTAL_LINK_LIFE,))).rowcount


async def alert_operator(conn: AsyncConnection[Any], item: WorkItem, sentence: str) -> None:
    """Write to the operator that `item` is parked and why, once for each sentence; a `workqueue.Alarm`.

    An alert that is itself parked is not written about, or a wrong address would have alerts beget alerts.
    """
    if item.kind is Kind.EMAIL:
        row = await (await conn.execute(_TEMPLATE, (int(item.key),))).fetchone()
        if row is None or row[0] == Template.OPERATOR_ALERT:
            return
    name = f"{item.kind} {item.key}"
    data = {
        "what": f"{name} is parked",
        "sentence": sentence,
        "commands": f"berth queue show {name}\nberth queue retry {name}",
    }
    digest = hashlib.sha256(sentence.encode()).hexdigest()
    await write_email(conn, f"parked:{item.kind}:{item.key}:{digest}", None, Template.OPERATOR_ALERT, data)
