"""Addresses that operators give: connection strings of MongoDB and the base URL of Langfuse.

Owns what makes one usable, in words for the operator, and how one is shown without its credentials.
Refuses to connect, to resolve names, and to put any part of a refused address into a message.
"""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, urlsplit

from tailer.settings.kinds import UnfitValueError

_HOST: Final = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[^\s:\[\]@]+)(?::(?P<port>[0-9]{1,5}))?")
_SEPARATORS: Final = re.compile("[&;]")
"""Of options: the driver takes either of them, and refuses both in one URI."""
_RESERVED_SIGNS: Final = frozenset("/?#[]@ ")
_SECRET_OPTION: Final = re.compile(r"(?i)password|secret|token|properties|keyfile")
_DEFAULT_PORT: Final = 27017
_LAST_PORT: Final = 65_535
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_LONGEST_DATABASE_BYTES: Final = 63
_FORBIDDEN_IN_DATABASE: Final = frozenset('/\\. "$*<>:|?\0')
_SYSTEM_DATABASES: Final = frozenset({"admin", "local", "config"})

EXAMPLE_URI: Final = "mongodb://mongodb:27017/LibreChat"


@dataclass(frozen=True, slots=True)
class MongoAddress:
    """The parts of a connection string that settings depend on; hosts in lower case, with their port."""

    scheme: str
    user: str | None
    hosts: tuple[str, ...]
    database: str | None
    options: tuple[str, ...]

    def shares_server_with(self, other: "MongoAddress") -> bool:
        """Whether the two name a host in common. Two names for one host stay unnoticed."""
        return not set(self.hosts).isdisjoint(other.hosts)

    def without_credentials(self) -> str:
        """The connection string with the password, and every option that can hold a secret, as stars."""
        user = f"{self.user}:****@" if self.user is not None else ""
        options = "&".join(mask_option(option) for option in self.options)
        path = f"/{self.database or ''}" if self.database or options else ""
        return f"{self.scheme}://{user}{','.join(self.hosts)}{path}{'?' if options else ''}{options}"


def mask_option(option: str) -> str:
    """An option of a connection string as it may be shown."""
    name, _, value = option.partition("=")
    return f"{name}=****" if value and _SECRET_OPTION.search(name) else option


def parse_mongo_uri(text: str) -> MongoAddress:
    """The parts of a connection string; raises `UnfitValueError`, which quotes nothing of it.

    Source of the form: MongoDB's connection string specification. Options are left to the driver.
    """
    scheme, separator, rest = text.partition("://")
    if not separator or scheme not in {"mongodb", "mongodb+srv"}:
        raise UnfitValueError("does not begin with mongodb:// or mongodb+srv://")
    authority, _, tail = rest.partition("/")
    if "/" not in rest:
        authority, _, query = rest.partition("?")
        tail = f"?{query}"
        if "@" in query and "@" not in authority:
            # A question mark in a password ends the authority early: the rest of it then stands among the options.
            raise _unescaped()
    path, _, query = tail.partition("?")
    credentials, at_sign, host_list = authority.rpartition("@")
    user, _, password = credentials.partition(":")
    # A slash in a password ends the authority early: the at sign then stands in the path.
    if "@" in path or ":" in password or _RESERVED_SIGNS & set(credentials):
        raise _unescaped()
    options = tuple(option for option in _SEPARATORS.split(query) if option)
    if any("=" not in option for option in options):
        raise UnfitValueError(
            "has an option without =", "write each option as name=value, with & between them"
        )
    hosts = tuple(_parse_host(host, scheme) for host in host_list.split(","))
    if scheme == "mongodb+srv" and len(hosts) != 1:
        raise UnfitValueError("names several hosts, where mongodb+srv:// takes one")
    return MongoAddress(
        scheme=scheme,
        user=user if at_sign else None,
        hosts=hosts,
        database=_parse_database(unquote(path)),
        options=options,
    )


def _unescaped() -> UnfitValueError:
    return UnfitValueError(
        "has user or password with characters that end them early",
        "percent-encode the characters : / ? # [ ] @ and % in user and password (@ is %40, / is %2F)",
    )


def _parse_host(host: str, scheme: str) -> str:
    match = _HOST.fullmatch(host)
    if match is None:
        raise UnfitValueError("has no readable host name", f"write it like {EXAMPLE_URI}")
    port = match.group("port")
    if port is not None and not 1 <= int(port) <= _LAST_PORT:
        raise UnfitValueError("has a port that is not between 1 and 65535")
    name = match.group("name").lower()
    if scheme == "mongodb+srv":
        if port is not None:
            raise UnfitValueError("gives a port, which mongodb+srv:// takes from DNS", "leave the port out")
        return name
    return f"{name}:{port or _DEFAULT_PORT}"


def _parse_database(path: str) -> str | None:
    if not path:
        return None
    if not is_database_name(path):
        raise UnfitValueError("has a path that is no name of a database", f"write it like {EXAMPLE_URI}")
    return path


def is_database_name(name: str) -> bool:
    """Whether MongoDB accepts the name on every platform."""
    fits = 0 < len(name.encode("utf-8", "replace")) <= _LONGEST_DATABASE_BYTES
    return fits and not _FORBIDDEN_IN_DATABASE & set(name)


def is_system_database(name: str) -> bool:
    """Whether the database belongs to MongoDB itself: no change stream opens there."""
    return name in _SYSTEM_DATABASES


def parse_langfuse_url(text: str) -> str:
    """The base URL without a slash at its end; raises `UnfitValueError`, which quotes nothing of it."""
    try:
        parts = urlsplit(text)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not text.isascii() or not text.isprintable() or " " in text:
        raise UnfitValueError("is not an http:// or https:// URL")
    if "@" in parts.netloc:
        raise UnfitValueError(
            "has a user or password in it",
            "remove them: the keys go into LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY",
        )
    if parts.query or parts.fragment or "/api/public" in parts.path:
        raise UnfitValueError("is more than the base URL", "leave out /api/public and what follows, ? and #")
    return text.rstrip("/")


def name_server(url: str) -> str:
    """An http:// or https:// URL as it can be compared: the host in lower case, without the default port."""
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    port = None if parts.port == _DEFAULT_PORTS.get(parts.scheme) else parts.port
    return parts._replace(netloc=host if port is None else f"{host}:{port}").geturl()


def parse_otlp_url(text: str) -> str:
    """An OTLP server's address without a slash at its end; raises `UnfitValueError`, which quotes nothing of it."""
    try:
        parts = urlsplit(text)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not text.isascii() or not text.isprintable() or " " in text:
        raise UnfitValueError("is not an http:// or https:// URL")
    if "@" in parts.netloc:
        raise UnfitValueError(
            "has a user or password in it", "remove them: they go into the header Authorization"
        )
    if parts.fragment:
        raise UnfitValueError("has a fragment", "leave out # and what follows")
    return text.rstrip("/")


def parse_otlp_base_url(text: str) -> str:
    """The same for an address to which the path of a signal is added."""
    url = parse_otlp_url(text)
    if urlsplit(url).query:
        raise UnfitValueError(
            "has a query, after which no path can be added", "give the complete traces_endpoint"
        )
    return url
