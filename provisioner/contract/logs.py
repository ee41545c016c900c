"""How both services log: one line each, to standard error."""

import logging
import sys
from typing import Literal

import structlog

# These tell of every request or connection at INFO, with addresses that may hold more than we log.
_CHATTY = ("httpx", "httpcore", "stripe", "psycopg.pool", "asyncio", "aiosmtplib")


def configure_logs(log_format: Literal["json", "console"], *, tracebacks: bool) -> None:
    """Send this process's logs, libraries' included, to standard error.

    Args:
        log_format: `json` for machines, `console` for people.
        tracebacks: whether an exception's own text may be logged; it can quote what a customer sent.
    """
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if tracebacks:
        shared.append(structlog.processors.format_exc_info)
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer() if log_format == "json" else structlog.dev.ConsoleRenderer()
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)
