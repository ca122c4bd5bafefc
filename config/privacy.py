"""The section `privacy` of the configuration."""

from typing import Annotated

from pydantic import Field, FilePath, PositiveInt, SecretStr, model_validator

from config.loading import Section
from schema.pseudonym import MIN_KEY_BYTES


class Privacy(Section):
    """How users are named, and how much of one may show in what is learned from all."""

    pseudonym_key: SecretStr = SecretStr("")
    pseudonym_key_file: FilePath | None = None
    noise_multiplier: Annotated[float, Field(ge=0)] = 0.0
    max_contributions: Annotated[int, Field(ge=1)] = 50
    release_interactions: PositiveInt = 10_000

    @model_validator(mode="after")
    def _is_long_enough(self) -> "Privacy":
        key = self.key()
        if key is not None and not MIN_KEY_BYTES <= len(key) <= 64:
            raise ValueError(f"the pseudonym key has {len(key)} bytes, {MIN_KEY_BYTES} to 64 are needed")
        return self

    def key(self) -> bytes | None:
        """The key of the pseudonyms, None for user ids as they are."""
        file, given = self.pseudonym_key_file, self.pseudonym_key.get_secret_value()
        return (file.read_text().strip() if file else given).encode() or None
