from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, SecretStr

from provisioner.contract.settings import EnvironmentSettings
from provisioner.mailer import MailServer, is_address
from provisioner.render import default_charts_folder


def _with_slug(value: str) -> str:
    if "{slug}" not in value:
        raise ValueError("must contain {slug}, as in https://{slug}.apps.example.com")
    return value


def _address(value: str) -> str:
    if not is_address(value):
        raise ValueError("must be one e-mail address, as in ops@example.com")
    return value


def _mail_server(value: SecretStr) -> SecretStr:
    MailServer.from_url(value.get_secret_value())
    return value


class Settings(EnvironmentSettings):
    """What the provisioner needs to know. Field `x` is `BERTH_X`, or stands in the file `BERTH_X_FILE` names.

    `api_url` is where customers' browsers reach platform_api, for links in e-mails; what needs a person is
    written to `operator_email`, if there is one.
    `kubeconfig` None means the pod's own service account; `charts_dir` None the charts shipped with Berth.
    """

    database_url: SecretStr
    stripe_api_key: SecretStr
    stripe_api_url: str = "https://api.stripe.com"
    apps_url: Annotated[str, AfterValidator(_with_slug)]
    api_url: str
    root_key: SecretStr
    smtp_url: Annotated[SecretStr, AfterValidator(_mail_server)]
    mail_from: str
    operator_email: Annotated[str, AfterValidator(_address)] | None = None
    kubeconfig: Path | None = None
    catalogue_dir: Path | None = None
    charts_dir: Path | None = None
    ingress_class: str = ""
    storage_class: str = ""
    tenant_node_selector: dict[str, str] = Field(default_factory=dict)
    tenant_tolerations: list[dict[str, Any]] = Field(default_factory=list)
    workers: int = Field(default=8, ge=1, le=64)
    lease_seconds: float = Field(default=30, ge=1, le=600)
    provisioner_metrics_port: int = Field(default=9181, ge=0, le=65535)
    log_format: Literal["json", "console"] = "json"

    @property
    def lease(self) -> timedelta:
        """How long a claimed item is ours unless we say that we live."""
        return timedelta(seconds=self.lease_seconds)

    @property
    def charts(self) -> Path:
        """The folder of the charts instances are made from."""
        return self.charts_dir or default_charts_folder()
