"""What TAILER_HTTP_HOST stands for: the sockets that listen, and the addresses at which they answer on this machine.

`localhost` is both loopback addresses, `::` is every address of both families; whatever of it a machine lacks is left
out, so that one value serves where there is IPv4, IPv6 or both. Anything else is what it resolves to.
"""

import errno
import socket
from collections.abc import Sequence
from typing import Final

EVERYWHERE: Final = "::"
_EVERYWHERE_IPV4: Final = "0.0.0.0"  # noqa: S104 - where there is no IPv6, this is what every address means
_LOOPBACK_IPV4, _LOOPBACK_IPV6 = "127.0.0.1", "::1"
_LACKING: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT})
"""A machine without a family, or without its loopback address."""
_MOST_ATTEMPTS: Final = 16
_BACKLOG: Final = 128


def open_sockets(host: str, port: int) -> Sequence[socket.socket]:
    """Listening sockets, all on one port; with port 0 on one that is free in both families.

    Raises OSError when none can be had: the port is taken, or the address is none of this machine's.
    """
    for _ in range(_MOST_ATTEMPTS - 1):
        try:
            return _open(host, port)
        except OSError as error:
            # A port that is free in one family may be taken in the other.
            if port != 0 or error.errno != errno.EADDRINUSE:
                raise
    return _open(host, port)


def local_addresses(host: str) -> Sequence[str]:
    """Where a process of this machine finds what listens on `host`, in the order in which to try."""
    match host.lower():
        case "localhost":
            return _LOOPBACK_IPV4, _LOOPBACK_IPV6
        case "::":
            return _LOOPBACK_IPV6, _LOOPBACK_IPV4
        case "0.0.0.0":  # noqa: S104 - replaced, not bound
            return (_LOOPBACK_IPV4,)
        case _:
            return (host,)


def join_address(host: str, port: int) -> str:
    """The host and the port as they stand in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def explain_refusal(error: OSError) -> str:
    """What to set when `open_sockets` failed."""
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return "set TAILER_HTTP_HOST to an address of this machine: localhost for itself alone, :: for every address"
    return "choose another TAILER_HTTP_PORT, or 0 for a free one"


def _open(host: str, port: int) -> Sequence[socket.socket]:
    lacking: OSError | None = None
    sockets: list[socket.socket] = []
    try:
        for family, address in _resolve(host, port):
            try:
                listener = _listen(family, address, port, both_families=host == EVERYWHERE)
            except OSError as error:
                if error.errno not in _LACKING:
                    raise
                lacking = error
                continue
            sockets.append(listener)
            port = port or int(listener.getsockname()[1])
            if host == EVERYWHERE:
                break
        if not sockets and lacking is not None:
            raise lacking
    except OSError:
        for opened in sockets:
            opened.close()
        raise
    return sockets


def _resolve(host: str, port: int) -> Sequence[tuple[int, str]]:
    match host.lower():
        case "localhost":
            return (socket.AF_INET, _LOOPBACK_IPV4), (socket.AF_INET6, _LOOPBACK_IPV6)
        case "::":
            return (socket.AF_INET6, EVERYWHERE), (socket.AF_INET, _EVERYWHERE_IPV4)
        case _:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            return list(dict.fromkeys((int(family), str(address[0])) for family, *_, address in found))


def _listen(family: int, address: str, port: int, *, both_families: bool) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setblocking(False)
        # A restart must not wait for the connections of the run before.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if both_families else 1)
        listener.bind((address, port))
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener
