from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator

from provisioner.contract.settings import EnvironmentSettings


class Settings(EnvironmentSettings):
    """What platform_api needs to know. Field `x` is `BERTH_X`, or stands in the file `BERTH_X_FILE` names."""

    database_url: SecretStr
    stripe_api_key: SecretStr
    stripe_api_url: str = "https://api.stripe.com"
    webhook_secret: SecretStr
    apps_url: str
    catalogue_dir: Path | None = None
    api_port: int = Field(default=8080, ge=0, le=65535)
    api_metrics_port: int = Field(default=9180, ge=0, le=65535)
    api_url: str = ""
    trusted_hosts: str = "*"
    log_format: Literal["json", "console"] = "json"

    @field_validator("apps_url")
    @classmethod
    def _has_a_place_for_the_slug(cls, value: str) -> str:
        if "{slug}" not in value:
            raise ValueError("must contain {slug}, as in https://{slug}.apps.example.com")
        return value

    @field_validator("webhook_secret")
    @classmethod
    def _has_a_secret(cls, value: SecretStr) -> SecretStr:
        if not _words(value.get_secret_value()):
            raise ValueError("must hold at least one signing secret")
        return value

    @property
    def webhook_secrets(self) -> tuple[str, ...]:
        """The signing secrets an event may be signed with: several while one replaces another."""
        return _words(self.webhook_secret.get_secret_value())

    @property
    def hosts(self) -> frozenset[str]:
        """Names that a request's Host header may carry, in lower case; `*` stands for any."""
        return frozenset(_words(self.trusted_hosts.lower()))

    @property
    def public_url(self) -> str:
        """Where browsers reach this API, without a trailing slash."""
        return (self.api_url or f"http://127.0.0.1:{self.api_port}").rstrip("/")

    def instance_url(self, slug: str) -> str:
        """Where the instance called `slug` answers."""
        return self.apps_url.replace("{slug}", slug)


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.replace(",", " ").split())
