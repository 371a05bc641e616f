"""What the stream reported and no document says any more: texts as first written, titles and settings as they were.

LibreChat overwrites a conversation's settings with every turn, and a title or a question when a person edits it. So
what is read some seconds later, or after the next question, is not what the turn had. The memory is small and lives
with the process. Whatever it does not hold is unknown, and the traces say so.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Generic, TypeVar

from tailer.core.identity import DocumentKey, inserted_seconds
from tailer.core.librechat.conversations import SETTINGS_FIELDS
from tailer.core.light_dataclass import light_dataclass
from tailer.core.stream.hints import ChangeHint, Operation, Stream

_TEXT_BYTES = 2_000_000
"""The bytes of all texts of questions together: some four thousand questions of ordinary length, more than can be open
at once."""
_ENTRY_BYTES = 250
"""What an entry takes besides its text."""
_SETTINGS_CHANGES = 5_000
"""Writes of settings together: those of the turns that are open, and of many before them."""
_CONVERSATIONS = 5_000
_CHANGES_OF_ONE = 12
_DIFFERENT_SETTINGS = 200
"""Settings that are kept once for all conversations that have them: most have those of a few models and presets."""
_Value = TypeVar("_Value")


@light_dataclass(frozen=True, slots=True)
class SettingsChange:
    """One write of a conversation's settings: the fields that it changed and, if they were small enough to travel,
    their new values. `whole` for the first write of a conversation, which sets everything."""

    written_milliseconds: int
    names: frozenset[str]
    values: Mapping[str, object] | None = field(repr=False)
    whole: bool


@light_dataclass(frozen=True, slots=True)
class FirstTitle:
    """A title as it was first stored, and when."""

    text: str = field(repr=False)
    written_milliseconds: int


@light_dataclass(frozen=True, slots=True)
class ToldSettings:
    """The settings of a conversation at a moment, if they differ from today's: `values` are the known ones (None: the
    field was not set), `unknown` the names of the others."""

    values: Mapping[str, object | None] = field(repr=False)
    unknown: frozenset[str]


@dataclass(slots=True)
class _Bounded(Generic[_Value]):
    """The newest values, up to a limit of their sizes together."""

    limit: int
    size_of: Callable[[_Value], int]
    size: int = 0
    items: OrderedDict[DocumentKey, _Value] = field(default_factory=OrderedDict)

    def put(self, key: DocumentKey, value: _Value) -> None:
        self.drop(key)
        self.items[key] = value
        self.size += self.size_of(value)
        while self.size > self.limit:
            _, oldest = self.items.popitem(last=False)
            self.size -= self.size_of(oldest)

    def drop(self, key: DocumentKey) -> None:
        known = self.items.pop(key, None)
        if known is not None:
            self.size -= self.size_of(known)


@lru_cache(maxsize=512)
def _settings_among(changed: frozenset[str]) -> frozenset[str]:
    """The same few sets of fields change again and again, so one copy of each is kept."""
    return SETTINGS_FIELDS & changed


def _size_of_text(text: str) -> int:
    return len(text) + _ENTRY_BYTES


class StreamMemory:
    """What is remembered of questions and conversations."""

    def __init__(self) -> None:
        self._texts: _Bounded[str] = _Bounded(_TEXT_BYTES, _size_of_text)
        self._edited: _Bounded[bool] = _Bounded(_CONVERSATIONS, lambda _: 1)
        self._titles: _Bounded[FirstTitle] = _Bounded(_CONVERSATIONS, lambda _: 1)
        self._settings: _Bounded[tuple[SettingsChange, ...]] = _Bounded(_SETTINGS_CHANGES, len)
        self._since: dict[Stream, int] = {}
        self._known: dict[str, Mapping[str, object]] = {}

    def follow(self, stream: Stream, since_seconds: int) -> None:
        """Note that a stream is read without a gap from this cluster second on; everything earlier is forgotten."""
        self._since[stream] = since_seconds
        if stream is Stream.CONVERSATIONS:
            self._settings = _Bounded(_SETTINGS_CHANGES, len)
            self._titles = _Bounded(_CONVERSATIONS, lambda _: 1)
        elif stream is Stream.MESSAGES:
            self._texts = _Bounded(_TEXT_BYTES, _size_of_text)
            self._edited = _Bounded(_CONVERSATIONS, lambda _: 1)

    def is_following(self, stream: Stream) -> bool:
        """Whether the stream was ever said to be read."""
        return stream in self._since

    def follows(self, stream: Stream, key: DocumentKey) -> bool:
        """Whether everything that happened to a document since its insertion was read."""
        inserted, since = inserted_seconds(key), self._since.get(stream)
        # Only seconds are known: what began in the first one may have begun before it was read.
        return inserted is not None and since is not None and inserted > since

    def note(self, stream: Stream, hint: ChangeHint) -> None:
        """Remember the values in a hint."""
        if stream is Stream.MESSAGES:
            self._note_message(hint)
        elif stream is Stream.CONVERSATIONS:
            self._note_conversation(hint)

    def _note_message(self, hint: ChangeHint) -> None:
        key = hint.document_key
        if hint.operation is Operation.DELETE:
            self._texts.drop(key)
            self._edited.drop(key)
        elif hint.text is not None:
            self._texts.put(key, hint.text)
        elif hint.operation is Operation.UPDATE and "text" in hint.changed:
            self._edited.put(key, value=True)

    def _note_conversation(self, hint: ChangeHint) -> None:
        key = hint.document_key
        if hint.operation is Operation.DELETE:
            self._titles.drop(key)
            self._settings.drop(key)
            return
        written = hint.written_milliseconds
        is_first = hint.operation is Operation.UPDATE and key not in self._titles.items
        if is_first and hint.title is not None and written is not None:
            self._titles.put(key, FirstTitle(hint.title, written))
        names = _settings_among(hint.changed)
        whole = hint.operation is not Operation.UPDATE
        if (names or whole) and written is not None:
            change = SettingsChange(written, names, self._share(hint.settings), whole)
            known = () if whole else self._settings.items.get(key, ())
            self._settings.put(key, (*known, change)[-_CHANGES_OF_ONE:])

    def _share(self, settings: Mapping[str, object] | None) -> Mapping[str, object] | None:
        """These settings as one object for all who have the same."""
        if settings is None:
            return None
        if len(self._known) >= _DIFFERENT_SETTINGS:
            self._known.clear()
        return self._known.setdefault(repr(settings), settings)

    def question_of(self, key: DocumentKey) -> tuple[str | None, bool]:
        """The text of a question as it was first written, if it is remembered, and whether it was changed since."""
        return self._texts.items.get(key), key in self._edited.items

    def title_of(self, key: DocumentKey) -> FirstTitle | None:
        """The first title that was stored for a conversation, if it was followed from its beginning."""
        return self._titles.items.get(key) if self.follows(Stream.CONVERSATIONS, key) else None

    def settings_of(
        self, key: DocumentKey, *, at_milliseconds: int, answer: DocumentKey
    ) -> ToldSettings | None:
        """What differs between a conversation's settings when an answer was stored and those of today; None where the
        stream was not followed by then."""
        if not self.follows(Stream.CONVERSATIONS, answer):
            return None
        return compare_settings(self._settings.items.get(key, ()), at_milliseconds)


def compare_settings(changes: tuple[SettingsChange, ...], at_milliseconds: int) -> ToldSettings:
    """The settings at a moment, as far as later changes and earlier knowledge determine them."""
    # The first write of a conversation comes before its first answer, whatever the clocks say.
    later = [
        change for change in changes if not change.whole and change.written_milliseconds > at_milliseconds
    ]
    earlier = [change for change in changes if change not in later]
    values: dict[str, object | None] = {}
    unknown = set()
    for name in sorted(frozenset().union(*(change.names for change in later))):
        known = next((change for change in reversed(earlier) if change.whole or name in change.names), None)
        if known is None or known.values is None:
            unknown.add(name)
        else:
            values[name] = known.values.get(name)
    return ToldSettings(values, frozenset(unknown))
