"""How configurations are read: one TOML file, environment overrides, every fault reported at once."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

S = TypeVar("S", bound="FileSettings")


class SettingsError(ValueError):
    """The configuration is not valid; the message lists every fault."""


class Section(BaseModel):
    """A table of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class FileSettings(BaseSettings):
    """A whole configuration; each field can be set as HEADRACE_SECTION__FIELD in the environment."""

    model_config = SettingsConfigDict(env_prefix="HEADRACE_", env_nested_delimiter="__", extra="forbid", frozen=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment goes before the file, the file before the defaults."""
        file = os.environ.get("HEADRACE_CONFIG")
        return (env_settings, TomlConfigSettingsSource(settings_cls, file)) if file else (env_settings,)


def load(settings: type[S], file: Path | None = None) -> S:
    """Read and validate a configuration. Raises SettingsError naming every field that is at fault and its value."""
    before = os.environ.get("HEADRACE_CONFIG")
    if file:
        os.environ["HEADRACE_CONFIG"] = str(file)
    try:
        return settings()
    except ValidationError as error:
        faults = [f"  {'.'.join(map(str, fault['loc']))} = {_shown(fault)}: {fault['msg']}" for fault in error.errors()]
        # Not "from error", whose own text would show every input.
        raise SettingsError("\n".join([f"The configuration has {len(faults)} faults:", *faults])) from None
    except ValueError as error:
        raise SettingsError(f"The configuration cannot be read: {error}") from error
    finally:
        if file:
            os.environ.pop("HEADRACE_CONFIG")
            os.environ |= {"HEADRACE_CONFIG": before} if before is not None else {}


def _shown(fault: "ErrorDetails") -> str:
    """A faulty value, but nothing that is or may hold a secret, nor what stands under a name misspelt where secrets
    stand."""
    place, given = fault["loc"], fault["input"]
    if fault["type"] == "extra_forbidden" and place[0] in ("kafka", "privacy", "serving"):
        return "***"
    if isinstance(given, dict | BaseModel):
        return f"fields {', '.join(name for name, *_ in (given.items() if isinstance(given, dict) else given))}"
    return "***" if set(place) & {"password", "pseudonym_key", "properties", "api_key"} else repr(given)
