"""What the settings say about traces: which turns, how much of their content, under which names and tags."""

from collections import Counter
from dataclasses import replace

from tailer.core.masking.masker import Masker, compile_rules
from tailer.core.policy.policies import Fact, Policies
from tailer.core.policy.users import UserNaming
from tailer.core.trace.bounds import Bounds
from tailer.core.trace.content_policy import ContentPolicy, drop_content, mask_content
from tailer.core.trace.export import ExportOptions
from tailer.mongo.state import MongoState
from tailer.settings import Settings


def needs_users(settings: Settings) -> bool:
    """Whether any setting asks for more of a user than the id."""
    return (
        _make_naming(settings).needs_users
        or _make_policies(settings).needs_users
        or Fact.ROLE in settings.tag_facts
        or needs_groups(settings)
    )


def needs_groups(settings: Settings) -> bool:
    """Whether any setting asks for the groups of a user."""
    return Fact.GROUP in settings.tag_facts or _make_policies(settings).needs_groups


async def make_options(settings: Settings, state: MongoState, redactions: Counter[str]) -> ExportOptions:
    """What is exported; `redactions` counts, by rule, what masking replaces."""
    return replace(make_plain_options(settings), mask=await _make_mask(settings, state, redactions))


def make_plain_options(settings: Settings) -> ExportOptions:
    """What is exported, for a command that shows none of it: masked content is dropped instead."""
    return ExportOptions(
        bounds=Bounds(field_bytes=settings.field_bytes, history_bytes=settings.history_bytes),
        tags=settings.tags,
        tag_facts=settings.tag_facts,
        sample_rate=settings.langfuse_sample_rate,
        policies=_make_policies(settings),
        naming=_make_naming(settings),
        mask=drop_content,
    )


def _make_policies(settings: Settings) -> Policies:
    return Policies(
        temporary=settings.temporary,
        copies=settings.copies,
        native=settings.native,
        content=settings.content,
        content_rules=settings.content_rules,
        allow=settings.allow,
        deny=settings.deny,
    )


def _make_naming(settings: Settings) -> UserNaming:
    secret = settings.user_id_secret
    return UserNaming(settings.user_id, secret.get_secret_value().encode() if secret is not None else b"")


async def _make_mask(settings: Settings, state: MongoState, redactions: Counter[str]) -> ContentPolicy:
    """The masking of this deployment, counted in `redactions`; its key is kept in the state database."""
    rules, key = compile_rules(settings.mask_patterns, settings.mask_fields), await state.mask_key()
    redactions.update(dict.fromkeys(rules.rule_names, 0))
    return mask_content(lambda: Masker(rules, key, redactions))
