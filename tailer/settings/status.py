"""The settings of the status page: whether there is one, what it shows, and under which names."""

from typing import Annotated

from pydantic import BaseModel, Field

from tailer.settings.environment import Group, Setting
from tailer.settings.kinds import choice, switch
from tailer.settings.lists import pieces
from tailer.web.page.traces import TracesShown

_NOT_IN_A_HOST = frozenset("/:@ ")


def _parse_host(name: str) -> str:
    if _NOT_IN_A_HOST.intersection(name):
        message = "only the name is needed, without scheme, port and path"
        raise ValueError(message)
    return name.lower().rstrip(".")


class StatusSettings(BaseModel):
    """The page at `/` of the HTTP port."""

    status_page: Annotated[bool, Setting(Group.OPERATION, switch(), ("TAILER_STATUS_PAGE",))] = Field(
        default=True,
        description="Whether `/` shows how the daemon is doing, for people without Grafana. True: it shows no more "
        "than `/metrics` on the same port, and is wanted most when nobody prepared for it.",
    )
    status_traces: Annotated[
        TracesShown, Setting(Group.OPERATION, choice(TracesShown), ("TAILER_STATUS_TRACES",))
    ] = Field(
        default=TracesShown.NONE,
        description="Whether the status page shows the last traces: none, their tree with durations, tokens and "
        "cost, or also the content that TAILER_CONTENT has left. None, because whoever reaches the port sees "
        "the page, without any log-in.",
    )
    status_hosts: Annotated[
        tuple[str, ...],
        Setting(
            Group.OPERATION,
            pieces("host names with commas between them, such as tailer.example.com", _parse_host),
            ("TAILER_STATUS_HOSTS",),
        ),
    ] = Field(
        default=(),
        description="Names under which browsers may ask for the status page, behind an ingress or a proxy; "
        "addresses, localhost, names without a dot and those of a Kubernetes cluster always may. None, so "
        "that no web page can read it by a name of its own (DNS rebinding).",
    )
