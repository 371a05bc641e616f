"""What the settings say about traces: which turns, how much of their content, under which names and tags."""

from collections import Counter

from tailer.core.masking.masker import Masker, compile_rules
from tailer.core.policy.policies import Fact, Policies
from tailer.core.policy.users import UserNaming
from tailer.core.trace.bounds import Bounds
from tailer.core.trace.content_policy import MakeMasker
from tailer.core.trace.export import ExportOptions
from tailer.mongo.state import MongoState
from tailer.settings import Settings
from tailer.settings.destinations import Choices, DestinationSettings


def needs_users(settings: Settings) -> bool:
    """Whether any setting, route or destination asks for more of a user than the id."""
    chosen = [destination.choices for destination in settings.destinations]
    return (
        any(_make_naming(choices).needs_users for choices in chosen)
        or any(_make_policies(settings, choices).needs_users for choices in chosen)
        or settings.routes.needs_users
        or Fact.ROLE in settings.tag_facts
        or needs_groups(settings)
    )


def needs_groups(settings: Settings) -> bool:
    """Whether any setting, route or destination asks for the groups of a user."""
    return (
        Fact.GROUP in settings.tag_facts
        or any(_make_policies(settings, each.choices).needs_groups for each in settings.destinations)
        or settings.routes.needs_groups
    )


def make_options_for(
    settings: Settings, destination: DestinationSettings, mask: MakeMasker | None
) -> ExportOptions:
    """What is exported to a destination; `mask` may be shared by all of them. Without it, what is to be masked is not
    shown."""
    choices, routes, name = destination.choices, settings.routes, destination.name
    return ExportOptions(
        bounds=Bounds(field_bytes=settings.field_bytes, history_bytes=settings.history_bytes),
        tags=settings.tags,
        tag_facts=settings.tag_facts,
        sample_rate=choices.sample_rate,
        policies=_make_policies(settings, choices),
        naming=_make_naming(choices),
        mask=mask,
        receives=lambda facts: name in routes.choose(facts),
    )


def _make_policies(settings: Settings, choices: Choices) -> Policies:
    return Policies(
        temporary=settings.temporary,
        copies=settings.copies,
        native=settings.native,
        content=choices.content,
        content_rules=choices.content_rules,
        allow=settings.allow,
        deny=settings.deny,
    )


def _make_naming(choices: Choices) -> UserNaming:
    secret = choices.user_id_secret
    return UserNaming(choices.user_id, secret.get_secret_value().encode() if secret is not None else b"")


async def make_mask(settings: Settings, state: MongoState, redactions: Counter[str]) -> MakeMasker:
    """The masking of this deployment, counted in `redactions`; its key is kept in the state database."""
    rules, key = compile_rules(settings.mask_patterns, settings.mask_fields), await state.mask_key()
    redactions.update(dict.fromkeys(rules.rule_names, 0))
    return lambda: Masker(rules, key, redactions)
