"""The loopback ports of a stack: chosen once, remembered, and the same at every later start."""

import json
import socket
from dataclasses import asdict, dataclass, fields
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Ports:
    """One loopback port per server."""

    api: int = 8400
    api_metrics: int = 8401
    provisioner_metrics: int = 8402
    stripe: int = 8403
    smtp: int = 8404
    mailbox: int = 8405
    postgres: int = 8406


def remembered_ports(file: Path) -> Ports:
    """Return the ports kept in `file`; the first time, the usual ones or, where taken, free ones."""
    if file.exists():
        return Ports(**json.loads(file.read_text(encoding="utf-8")))
    ports = Ports(**{field.name: _usual_or_free(getattr(Ports(), field.name)) for field in fields(Ports)})
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(asdict(ports)), encoding="utf-8")
    return ports


def free_ports() -> Ports:
    """Return ports that are free now, for a stack that lives as long as a test."""
    return Ports(**{field.name: free_port() for field in fields(Ports)})


def free_port() -> int:
    """Return a loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _usual_or_free(port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return free_port()
    return port
