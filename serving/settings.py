"""The configuration of the serving process: the sections of the job's file that it needs, and `serving`."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, FilePath, NonNegativeInt, PositiveInt, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from config.events import Events
from config.kafka import Kafka
from config.loading import FileSettings, Section
from config.privacy import Privacy


class Serving(Section):
    """How lists are served."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8000
    data: Path = Path("serving-view")
    api_key: SecretStr = SecretStr("")
    api_key_file: FilePath | None = None
    requests_per_second: NonNegativeInt = 0
    max_body_bytes: PositiveInt = 65_536
    allow_origins: list[str] = []
    page: bool = True
    pulse: bool = True
    desk: bool = False
    steering: bool = False

    @model_validator(mode="after")
    def _steers_behind_a_key(self) -> Self:
        if self.steering and not self.desk:
            raise ValueError("steering is the desk's: it needs desk = true")
        if self.steering and self.key() is None and self.host not in ("127.0.0.1", "::1", "localhost"):
            raise ValueError(f"steering on {self.host} needs api_key or api_key_file: anyone could change every list")
        return self

    def key(self) -> str | None:
        """The key that requests must carry, None where they need none."""
        return (self.api_key_file.read_text().strip() if self.api_key_file else self.api_key.get_secret_value()) or None


class ServingSettings(FileSettings):
    """The whole configuration of the serving process. Other sections of the file are the job's."""

    model_config = SettingsConfigDict(extra="ignore")

    kafka: Kafka = Kafka()
    events: Events = Events()
    privacy: Privacy = Privacy()
    serving: Serving = Serving()
