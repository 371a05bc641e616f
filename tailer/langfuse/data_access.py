"""How far back a project of Langfuse shows what it holds.

Langfuse Cloud shows the last 30 days of a project on its plan Hobby, 90 on Core, and everything on the others
(`data-access-days`, in its reads since August 2026). No answer says which plan a project has. Langfuse on servers of
one's own shows everything.
"""

from datetime import timedelta
from typing import Final
from urllib.parse import urlsplit

_CLOUD: Final = "cloud.langfuse.com"
_SHORTEST: Final = timedelta(days=29)
"""A day less than Hobby has: the clocks of three machines are compared."""


def shortest_sight(host: str) -> timedelta | None:
    """For how long a server is sure to show what began then; None where it shows everything."""
    name = urlsplit(host).hostname or ""
    return _SHORTEST if name == _CLOUD or name.endswith(f".{_CLOUD}") else None
