from datetime import timedelta


class TemporaryError(Exception):
    """Worth trying again: the message says what refused, `retry_after` when to ask again (None: backoff)."""

    def __init__(self, message: str, retry_after: timedelta | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class PermanentError(Exception):
    """Trying again cannot help before a person acts; the message is one sentence that names the remedy."""
