"""The options of the connections to MongoDB: the URI's own win, and the tailer fills in the others.

It is one list for the driver and for `tailer check-config`. Refuses to judge an option: the driver does.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote_plus

from tailer.settings.addresses import mask_option, parse_mongo_uri

SOCKET_MILLISECONDS: Final = 30_000
"""A query of large rows on a busy server may take its time. A stream is answered after a poll, but not while the server
scans an oplog full of other writes: with less patience it would ask for the same stretch again and again. A half-open
connection is noticed sooner, by the driver's own monitor."""
_READ_PREFERENCE: Final = "readPreference"
_PREFERENCES: Final = ("readpreference", "readpreferencetags", "maxstalenessseconds")
_POOL: Final = 16
_LEAST_POOL: Final = 5
"""Each of three streams may hold a connection while it waits for events, and two are left for everything else."""
_POOL_OPTION: Final = "maxPoolSize"
_HEARTBEAT: Final = 10_000
_STATE_HEARTBEAT: Final = 2000
"""A primary that answers nothing must be given up before the lease runs out."""
_DEFAULTS: Final[Mapping[str, int | bool | str]] = {
    # Soon given up, because the caller tries again for ever.
    "serverSelectionTimeoutMS": 2000,
    # One connection less for each server, and nothing is gained by more: what fails has the server looked at again.
    "serverMonitoringMode": "poll",
    "connectTimeoutMS": 3000,
    "retryReads": True,
    "retryWrites": True,
    _POOL_OPTION: _POOL,
}


@dataclass(frozen=True, slots=True)
class OptionInForce:
    """One option of a connection as people read it; `source` is "URI" or "default"."""

    name: str
    value: str
    source: str


def fill_options(
    uri: str, *, application: str, socket_milliseconds: int, keeps_state: bool = False
) -> dict[str, Any]:
    """The options that a client gets in addition to the URI: the tailer's own, without those that the URI gives."""
    given = given_options(uri)
    own = {
        **_DEFAULTS,
        "appName": application,
        "socketTimeoutMS": socket_milliseconds,
        "heartbeatFrequencyMS": _STATE_HEARTBEAT if keeps_state else _HEARTBEAT,
    }
    if "timeoutms" in given:
        # One limit for a whole operation takes the place of the limit of a socket.
        own.pop("socketTimeoutMS")
    least = given.get("minpoolsize", "")
    if least.isdecimal():
        own[_POOL_OPTION] = max(_POOL, int(least))
    filled = {name: value for name, value in own.items() if name.lower() not in given}
    # The driver lets this one win over the URI's.
    return filled if small_pool(uri) is None else {**filled, _POOL_OPTION: _LEAST_POOL}


def small_pool(uri: str) -> int | None:
    """The `maxPoolSize` that a URI gives and that is too small to work with; None if it gives none, or enough."""
    given = given_options(uri).get(_POOL_OPTION.lower(), "")
    # 0 means that there is no limit.
    return int(given) if given.isdecimal() and 0 < int(given) < _LEAST_POOL else None


def ignored_preference(uri: str) -> str | None:
    """The read preference that a URI gives without effect; None if it gives none, or the primary."""
    preference = given_options(uri).get("readpreference")
    return None if preference in (None, "primary") else preference


def describe_options(uri: str, *, keeps_state: bool) -> Sequence[OptionInForce]:
    """The options in force, by name: the URI's, the tailer's, and the read preference, which is always the same."""
    own = fill_options(
        uri,
        application="librechat-tailer…",
        socket_milliseconds=SOCKET_MILLISECONDS,
        keeps_state=keeps_state,
    )
    small = small_pool(uri)
    found = [
        OptionInForce(name, str(value).lower() if isinstance(value, bool) else str(value), "default")
        for name, value in own.items()
        if small is None or name != _POOL_OPTION
    ]
    if small is not None:
        raised = f"{_LEAST_POOL} ({small} of the URI is too few)"
        found.append(OptionInForce(_POOL_OPTION, raised, "always"))
    for option in parse_mongo_uri(uri).options:
        name, _, value = mask_option(option).partition("=")
        if name.lower() not in _PREFERENCES and (small is None or name.lower() != _POOL_OPTION.lower()):
            found.append(OptionInForce(name, value, "URI"))
    ignored = ignored_preference(uri)
    preference = "primary" if ignored is None else f"primary ({ignored} of the URI is not used)"
    found.append(OptionInForce(_READ_PREFERENCE, preference, "always"))
    return sorted(found, key=lambda option: option.name.lower())


def doubt_options(uri: str, name: str) -> Iterator[str]:
    """What a URI gives without effect, a sentence each; `name` is the setting that holds it."""
    preference, pool = ignored_preference(uri), small_pool(uri)
    if preference is not None:
        yield f"readPreference={preference} in {name} is not used: rows and state are read from the primary"
    if pool is not None:
        yield (
            f"maxPoolSize={pool} in {name} is too small: {_LEAST_POOL} is used, because each stream holds a connection "
            "while it waits"
        )


def given_options(uri: str) -> Mapping[str, str]:
    """The options of a URI by name in lower case, as the driver reads them."""
    pairs = (option.partition("=") for option in parse_mongo_uri(uri).options)
    return {name.lower(): unquote_plus(value) for name, _, value in pairs}


def describe_connections(source_uri: str, state_uri: str) -> Mapping[str, Sequence[OptionInForce]]:
    """The options of each connection, by its purpose; one set if both URIs are the same."""
    if source_uri == state_uri:
        return {"LibreChat's database and the state": describe_options(source_uri, keeps_state=True)}
    return {
        "LibreChat's database": describe_options(source_uri, keeps_state=False),
        "the state": describe_options(state_uri, keeps_state=True),
    }


def uses_tls(uri: str) -> bool:
    """Whether the connection is encrypted: by an option, or because `mongodb+srv` is unless an option denies it."""
    given = given_options(uri)
    told = given.get("tls", given.get("ssl"))
    return uri.startswith("mongodb+srv://") if told is None else told.lower() == "true"
