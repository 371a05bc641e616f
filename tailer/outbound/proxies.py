"""Which proxy leads to an address, by the variables that every program reads: HTTPS_PROXY, HTTP_PROXY, ALL_PROXY,
NO_PROXY.

httpx reads them too, but fails on what clusters write into NO_PROXY: IPv6 networks and addresses in brackets.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Final
from urllib.parse import urlsplit

from tailer.errors import DestinationError

_SCHEMES: Final = frozenset({"http", "https", "socks5", "socks5h"})
_PORTS: Final = {"http": 80, "https": 443}
_WITH_PORT: Final = re.compile(r"(?P<host>\[[^\]]+\]|[^:\[\]]+):(?P<port>[0-9]+)")


@dataclass(frozen=True, slots=True)
class ChosenProxy:
    """A proxy and the variable that names it. Its URL may hold a password and appears in no representation."""

    variable: str
    url: str

    def __repr__(self) -> str:
        """Only the variable."""
        return f"ChosenProxy({self.variable})"


def choose_proxy(address: str, environment: Mapping[str, str]) -> ChosenProxy | None:
    """The proxy for a URL, None if there is none or NO_PROXY names the host.

    Raises DestinationError, which names the variable, if its value is not the URL of a proxy.
    """
    parts = urlsplit(address)
    found = _first(environment, (f"{parts.scheme}_proxy", "all_proxy"))
    if found is None or _is_excepted(parts.hostname or "", _port_of(address), environment):
        return None
    variable, value = found
    url = value if "://" in value else f"http://{value}"
    try:
        proxy = urlsplit(url)
        usable = proxy.scheme.lower() in _SCHEMES and bool(proxy.hostname) and proxy.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise DestinationError(
            operation="choosing the proxy",
            subject=variable,
            hint="it is no URL of a proxy; write it like http://proxy:3128 or socks5://proxy:1080, or name "
            f"{parts.hostname} in NO_PROXY",
        )
    return ChosenProxy(variable, url)


def _first(environment: Mapping[str, str], names: tuple[str, ...]) -> tuple[str, str] | None:
    """The first variable that is set. The lower-case name wins, as in curl."""
    for name in names:
        for variable in (name, name.upper()):
            value = environment.get(variable, "").strip()
            if value:
                return variable, value
    return None


def _port_of(address: str) -> int | None:
    parts = urlsplit(address)
    return parts.port or _PORTS.get(parts.scheme)


def _is_excepted(host: str, port: int | None, environment: Mapping[str, str]) -> bool:
    exceptions = _first(environment, ("no_proxy",))
    entries = re.split(r"[\s,]+", exceptions[1]) if exceptions is not None else []
    return any(_excepts(entry, host, port) for entry in entries if entry)


def _excepts(entry: str, host: str, port: int | None) -> bool:
    """Whether an entry names a host: `*`, a name, a domain, an address or a network, each with or without a port."""
    if entry == "*":
        return True
    entry = entry.rpartition("://")[2]
    with_port = _WITH_PORT.fullmatch(entry)
    if with_port is not None:
        if int(with_port["port"]) != port:
            return False
        entry = with_port["host"]
    bare = entry.replace("[", "").replace("]", "")
    try:
        network = ip_network(bare, strict=False)
    except ValueError:
        name = bare.removeprefix("*").strip(".").lower()
        return bool(name) and (host == name or host.endswith(f".{name}"))
    try:
        return ip_address(host) in network
    except ValueError:
        return False
