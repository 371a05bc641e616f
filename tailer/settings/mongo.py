"""The settings of MongoDB: where LibreChat's database is, and where the tailer keeps its own."""

from typing import Annotated, Any, Final

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from tailer.settings.addresses import (
    EXAMPLE_URI,
    is_database_name,
    is_system_database,
    parse_mongo_uri,
)
from tailer.settings.environment import Group, Setting
from tailer.settings.group import SettingsGroup
from tailer.settings.kinds import UnfitValueError, secret, text

DEFAULT_DATABASE: Final = "LibreChat"


def _check_database(name: str) -> str:
    if not is_database_name(name):
        raise UnfitValueError("is no name that MongoDB accepts for a database")
    return name


def _same_server(validated: dict[str, Any]) -> SecretStr:
    # Without a usable URI of LibreChat there is an error anyway, about that URI and not about this default.
    uri: SecretStr = validated.get("mongo_uri", SecretStr(EXAMPLE_URI))
    return uri


class MongoSettings(SettingsGroup):
    """Two connection strings and two databases; `mongo_database` and `state_uri` are resolved."""

    mongo_uri: Annotated[
        SecretStr,
        Setting(
            Group.MONGO,
            secret("LibreChat's own MONGO_URI, such as mongodb://mongodb:27017/LibreChat", parse_mongo_uri),
            ("TAILER_MONGO_URI", "MONGO_URI"),
        ),
    ] = Field(
        description="Connection string of LibreChat's MongoDB, which must be a replica set. No default: a "
        "guess could be the data of another LibreChat. MONGO_URI, LibreChat's own name, is read so that "
        "both share one setting.",
    )
    mongo_database: Annotated[
        str,
        Setting(
            Group.MONGO,
            text("the name of a database", _check_database),
            ("TAILER_MONGO_DATABASE",),
            fallback=f"the path of the URI, else {DEFAULT_DATABASE}",
        ),
    ] = Field(
        default=DEFAULT_DATABASE,
        description="LibreChat's database, read only when the path of the URI names none. LibreChat, the "
        "name in its own compose and Helm files.",
    )
    state_uri: Annotated[
        SecretStr,
        Setting(
            Group.MONGO,
            secret("a connection string such as mongodb://mongodb:27017", parse_mongo_uri),
            ("TAILER_STATE_URI",),
            fallback="the same server",
        ),
    ] = Field(
        default_factory=_same_server,
        description="Connection string of the server that keeps checkpoints, export records and dead "
        "letters. The same server, because it must be up for the tailer to work anyway.",
    )
    state_database: Annotated[
        str,
        Setting(Group.MONGO, text("the name of a database", _check_database), ("TAILER_STATE_DATABASE",)),
    ] = Field(
        default="librechat_tailer",
        description="Database of the tailer's state, never LibreChat's. Named after the tailer, so that "
        "it is not mistaken for LibreChat's.",
    )

    @field_validator("mongo_database")
    @classmethod
    def _resolve_watched_database(cls, name: str, info: ValidationInfo) -> str:
        uri = info.data.get("mongo_uri")
        database = name if uri is None else parse_mongo_uri(uri.get_secret_value()).database or name
        if is_system_database(database):
            raise UnfitValueError(
                problem=f"resolves to {database}, a database of MongoDB itself, which cannot be tailed",
                remedy="give LibreChat's database in the path of the URI, and authSource=admin among its options if the user "
                "is kept there",
            )
        return database

    @field_validator("state_database")
    @classmethod
    def _keep_states_apart(cls, name: str, info: ValidationInfo) -> str:
        if is_system_database(name):
            raise UnfitValueError(problem=f"is {name}, a database of MongoDB itself")
        if not {"mongo_uri", "mongo_database", "state_uri"} <= info.data.keys():
            return name
        watched = parse_mongo_uri(info.data["mongo_uri"].get_secret_value())
        # MongoDB refuses two databases whose names differ only in case.
        is_same_name = name.casefold() == info.data["mongo_database"].casefold()
        state = parse_mongo_uri(info.data["state_uri"].get_secret_value())
        if is_same_name and watched.shares_server_with(state):
            raise UnfitValueError(
                problem=f"is LibreChat's own database ({info.data['mongo_database']}), where the tailer writes nothing",
                remedy="give another name, or leave it out for librechat_tailer",
            )
        return name
