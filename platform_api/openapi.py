"""Writes the OpenAPI document of this source tree: `python -m platform_api.openapi [FOLDER]`."""

import json
import sys
from pathlib import Path
from typing import Any

import stripe
import structlog
from pydantic import SecretStr

from catalogue.schema import Catalogue
from platform_api.app import make_app
from platform_api.database import make_pool
from platform_api.health import to_yaml
from platform_api.metrics import make_metrics
from platform_api.settings import Settings
from platform_api.stripe_gateway import StripeGateway

_DOCS = Path(__file__).resolve().parent.parent / "docs"


def render() -> dict[str, str]:
    """Return the document by file name, made from an app that is connected to nothing."""
    settings = Settings(
        database_url=SecretStr("postgresql://"),
        stripe_api_key=SecretStr("none"),
        webhook_secret=SecretStr("none"),
        apps_url="http://{slug}.localhost",
    )
    gateway = StripeGateway(stripe.StripeClient("none"), structlog.stdlib.get_logger())
    app = make_app(settings, make_pool(""), Catalogue(products={}), gateway, make_metrics())
    document: dict[str, Any] = app.openapi()
    return {
        "openapi.json": json.dumps(document, indent=2, ensure_ascii=False) + "\n",
        "openapi.yaml": to_yaml(document),
    }


def main(arguments: list[str]) -> int:
    """Write both files to the folder given, or to `docs/`."""
    folder = Path(arguments[0]) if arguments else _DOCS
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in render().items():
        (folder / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
