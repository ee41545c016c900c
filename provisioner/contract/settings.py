"""Settings from the environment; NAME_FILE names a file that holds NAME, so that secrets stay out of it."""

import os
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

PREFIX = "BERTH_"


class _FileSource(PydanticBaseSettingsSource):
    """Reads `BERTH_X` from the file named by `BERTH_X_FILE`."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        del field
        name = f"{PREFIX}{field_name.upper()}_FILE"
        path = os.environ.get(name)
        if path is None:
            return None, field_name, False
        try:
            return Path(path).read_text(encoding="utf-8").strip(), field_name, False
        except OSError as error:
            raise SettingsError(f"{name} names a file that cannot be read: {error}") from error

    def __call__(self) -> dict[str, Any]:
        values = {}
        for name, field in self.settings_cls.model_fields.items():
            value, key, _ = self.get_field_value(field, name)
            if value is not None:
                values[key] = value
        return values


class SettingsError(ValueError):
    """A setting is missing or unusable; the message names it and the remedy."""


class EnvironmentSettings(BaseSettings):
    """Base of both services' settings: `BERTH_<FIELD>` or `BERTH_<FIELD>_FILE`, the file first."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read arguments, then files, then the environment; nothing else."""
        del dotenv_settings, file_secret_settings
        return init_settings, _FileSource(settings_cls), env_settings


S = TypeVar("S", bound=EnvironmentSettings)


def load_settings(kind: type[S]) -> S:
    """Read settings of `kind` from the environment.

    Raises:
        SettingsError: one or more are missing or unusable; all are named, no value is shown.
    """
    try:
        return kind()
    except ValidationError as error:
        wrong = "; ".join(
            f"{PREFIX}{'.'.join(map(str, e['loc'])).upper()}: {e['msg']}"
            for e in error.errors(include_input=False, include_url=False, include_context=False)
        )
    raise SettingsError(f"set these in the environment (NAME, or NAME_FILE naming a file): {wrong}")
