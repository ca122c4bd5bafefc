"""The configuration of the serving process: the sections of the job's file that it needs, and `serving`."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, FilePath, NonNegativeInt, PositiveInt, SecretStr
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
    steering: bool = False

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
