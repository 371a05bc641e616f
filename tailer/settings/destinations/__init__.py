"""Where traces go: one destination by the environment alone, or several by the file that `TAILER_DESTINATIONS` names.

`Settings.destinations` and `Settings.routes` are what came of it, in the shapes of `destination.py` and of
`tailer.core.policy.routes`. A file states everything by itself; what it leaves out is as the environment says. So the
settings `LANGFUSE_*` and `TAILER_CONTENT` are defaults beside a file, and no destination of their own.

    otherwise = ["default"]                # where turns go that no route matches; needed as soon as there are routes

    [destinations.default]                 # the name that the environment's one destination has
    kind = "langfuse"                      # host and keys are those of the environment

    [destinations.team-a]
    kind = "langfuse"
    host = "https://langfuse.example.com"
    public_key = "pk-lf-…"                 # or public_key_env = "NAME", or public_key_file = "/run/secrets/…"
    secret_key_env = "TEAM_A_SECRET"
    content = "masked"

    [destinations.collector]
    kind = "otlp"
    endpoint = "http://collector:4318"     # /v1/traces is added
    headers_file = "/run/secrets/otlp-headers"

    [[routes]]                             # the first route that matches decides
    when = { tenant = ["a"], endpoint = ["openAI", "azure*"] }
    to = ["team-a", "collector"]           # [] sends it nowhere

Refuses to connect anywhere. Everything that is wrong is told in one `SettingsError`, with table, key and remedy.
"""

from tailer.settings.destinations.destination import (
    DEFAULT_NAME,
    Choices,
    Compression,
    DestinationKind,
    DestinationSettings,
    FileDestination,
    LangfuseDestination,
    MetricsWay,
    OtlpDestination,
    Way,
    address_of,
)
from tailer.settings.destinations.plan import Plan, plan_from_environment, plan_from_file
from tailer.settings.destinations.surroundings import Surroundings

__all__ = [
    "DEFAULT_NAME",
    "Choices",
    "Compression",
    "DestinationKind",
    "DestinationSettings",
    "FileDestination",
    "LangfuseDestination",
    "MetricsWay",
    "OtlpDestination",
    "Plan",
    "Surroundings",
    "Way",
    "address_of",
    "plan_from_environment",
    "plan_from_file",
]
