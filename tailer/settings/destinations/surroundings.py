"""What the environment says, which counts for everything that a destination of the file does not state."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from pydantic import SecretStr

from tailer.core.policy.policies import Fact
from tailer.settings.destinations.destination import Choices, Way


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The settings of the environment that destinations take their defaults from.

    `way` leads to `host` only: what proves the tailer to one server is shown to no other. `variables` are those of the
    environment and of `.env`, for keys such as `secret_key_env` and for the `OTEL_EXPORTER_OTLP_*` names.
    `request_timeout` counts where no other is given.
    """

    choices: Choices
    host: str
    public_key: str | None = field(repr=False)
    secret_key: SecretStr | None
    way: Way
    file_path: Path
    is_file: bool
    tag_facts: tuple[Fact, ...]
    request_timeout: timedelta
    variables: Mapping[str, str | None] = field(repr=False)
