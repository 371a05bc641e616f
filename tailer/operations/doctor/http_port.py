"""The check of the port for probes, metrics and the status page."""

from http.client import HTTPConnection, HTTPException
from typing import Final

from tailer.operations.doctor.findings import Finding, failed, passed
from tailer.settings import Settings
from tailer.web.listening import explain_refusal, join_address, local_addresses, open_sockets

_CHECK: Final = "HTTP port"
_PATIENCE_SECONDS: Final = 2.0
_OK: Final = 200
_OTHER_PORT: Final = "choose another TAILER_HTTP_PORT"


def check_port(settings: Settings) -> Finding:
    """A running tailer on it is good news; something else is not."""
    port = settings.http_port
    if port == 0:
        return passed(_CHECK, "any free one")
    for host in local_addresses(settings.http_host):
        connection = HTTPConnection(host, port, timeout=_PATIENCE_SECONDS)
        try:
            connection.request("GET", "/livez")
            answer = connection.getresponse()
            body = answer.read(100)
        except (TimeoutError, HTTPException) as error:
            return failed(_CHECK, f"{join_address(host, port)}: {type(error).__name__}", _OTHER_PORT)
        except OSError:
            # Nothing listens there, or this machine has no such address.
            continue
        finally:
            connection.close()
        if answer.status == _OK and b"alive" in body:
            return passed(_CHECK, f"a tailer answers on {join_address(host, port)}")
        return failed(
            _CHECK, f"something that is no tailer answers on {join_address(host, port)}", _OTHER_PORT
        )
    try:
        sockets = open_sockets(settings.http_host, port)
    except OSError as error:
        seen = f"{join_address(settings.http_host, port)}: {error.strerror or type(error).__name__}"
        return failed(_CHECK, seen, explain_refusal(error))
    for listener in sockets:
        listener.close()
    return passed(_CHECK, f"{port} is free")
