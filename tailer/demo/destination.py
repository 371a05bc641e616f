"""Where the traces of the demo go, and the settings of its daemon.

Owns the choice between Langfuse and a file. Refuses every setting that could make the demo show less than it plays. Of
the operator's settings it takes only the way to Langfuse, the amount of text, and the log level.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from pydantic import SecretStr
from pydantic_settings import SettingsConfigDict

from tailer.core.policy.policies import TracesShown
from tailer.demo.database import DATABASE, STATE_DATABASE, given_uri
from tailer.errors import DestinationError
from tailer.settings import Settings, SinkChoice, load_settings
from tailer.settings.from_code import FromCode

ENVIRONMENT: Final = "demo"
"""The Langfuse environment of the demo's traces, so that they are never taken for the operator's own."""
_TAKEN: Final = ("langfuse_public_key", "langfuse_secret_key", "langfuse_url", "content", "log_level")
_NO_SERVER_YET: Final = "mongodb://127.0.0.1"


class _OwnSettings(FromCode, Settings):
    """Settings that come from code alone."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(env_file=None)


@dataclass(frozen=True, slots=True)
class Destination:
    """The settings, still without a server, and the daemon's log. `trace_file` is None if Langfuse gets the traces."""

    settings: Settings
    trace_file: Path | None
    log_file: Path

    def settings_for(self, uri: str) -> Settings:
        """The settings with the server; its URI may name another database, which is left alone."""
        address = SecretStr(uri)
        return self.settings.model_copy(
            update={"mongo_uri": address, "state_uri": address, "mongo_database": DATABASE}
        )


def choose_destination(file: Path | None) -> Destination:
    """Langfuse if both keys are set, else a new file; a requested `file` wins.

    Raises SettingsError for unusable settings, DestinationError if the place cannot be written.
    """
    given = load_settings(mongo_uri=given_uri() or _NO_SERVER_YET)
    to_langfuse = file is None and given.langfuse_enabled and given.sink is SinkChoice.LANGFUSE
    if file is None:
        directory = Path(tempfile.mkdtemp(prefix="librechat-tailer-demo-"))
        traces, log = directory / "traces.jsonl", directory / "tailer.log"
    else:
        traces, log = file, file.with_name(f"{file.stem}.tailer.log")
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch()
    except OSError as error:
        raise DestinationError(
            operation="opening the daemon's log",
            subject=str(log),
            hint=f"{error.strerror}; give a file in a directory that this user may write, with --file",
        ) from error
    settings = _OwnSettings(
        mongo_uri=SecretStr(_NO_SERVER_YET),
        state_database=STATE_DATABASE,
        sink=SinkChoice.LANGFUSE if to_langfuse else SinkChoice.FILE,
        file_path=traces,
        langfuse_environment=ENVIRONMENT,
        tags=("librechat", "demo"),
        http_host="127.0.0.1",
        http_port=0,
        status_traces=TracesShown.CONTENT,
        **{name: getattr(given, name) for name in _TAKEN},
    )
    return Destination(settings, None if to_langfuse else traces, log)
