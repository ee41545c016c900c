"""E-mails as they arrived, the latest ones, in memory."""

import email.policy
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage
from itertools import count
from typing import Literal

MOST_MESSAGES = 1000
MOST_BYTES = 64 << 20


@dataclass(frozen=True)
class Message:
    """An e-mail.

    Attributes:
        id: rises with each that arrives.
        recipients: of the envelope, so blind copies are among them.
        text: its plain text; empty if it has none.
        html: its HTML; None if it has none.
        size: bytes on the wire.
    """

    id: int
    received_at: datetime
    sender: str
    recipients: tuple[str, ...]
    subject: str
    text: str
    html: str | None
    size: int


class Mailbox:
    """Keeps the latest messages, up to a number and a size in bytes."""

    def __init__(self, most_messages: int = MOST_MESSAGES, most_bytes: int = MOST_BYTES) -> None:
        self._most_messages = most_messages
        self._most_bytes = most_bytes
        self._messages: deque[Message] = deque()
        self._ids = count(1)
        self._size = 0

    def add(self, sender: str, recipients: tuple[str, ...], content: bytes) -> Message:
        """Keep a message, and let go of the oldest that no longer fit."""
        parsed = message_from_bytes(content, policy=email.policy.default)
        message = Message(
            next(self._ids),
            datetime.now(UTC),
            sender,
            recipients,
            str(parsed.get("subject", "")),
            _part(parsed, "plain") or "",
            _part(parsed, "html"),
            len(content),
        )
        self._messages.appendleft(message)
        self._size += message.size
        while len(self._messages) > self._most_messages or self._size > self._most_bytes:
            self._size -= self._messages.pop().size
        return message

    def find(self, message_id: int) -> Message | None:
        """The message of that id, if it is still here."""
        return next((one for one in self._messages if one.id == message_id), None)

    def listed(self, to: str | None = None) -> list[Message]:
        """The messages to a recipient, or to all; newest first."""
        wanted = None if to is None else to.casefold()
        return [
            one
            for one in self._messages
            if wanted is None or wanted in {recipient.casefold() for recipient in one.recipients}
        ]

    def clear(self) -> None:
        """Let go of all."""
        self._messages.clear()
        self._size = 0


def _part(parsed: EmailMessage, kind: Literal["plain", "html"]) -> str | None:
    part = parsed.get_body(preferencelist=(kind,))
    if part is None:
        return None
    try:
        content = part.get_content()
    except (LookupError, ValueError):
        content = part.get_payload()
    return content.replace("\r\n", "\n") if isinstance(content, str) else None
