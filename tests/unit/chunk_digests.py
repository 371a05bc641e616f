"""`python -m tests.unit.chunk_digests` writes down what the recordings' turns are as bytes on the wire, as digests.

Run it after a change that is meant to alter traces, and look at the difference: each recording that changed is named.
"""

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Final

from tailer.core.masking.masker import Masker, compile_rules
from tailer.core.policy.policies import ContentChoice, CopyPolicy, NativePolicy, Policies, TemporaryPolicy
from tailer.core.trace.export import Exported
from tailer.core.trace.otlp import SpanContext, encode_trace
from tests.recordings import CHAT_ROWS, NAMES, REPLAYED
from tests.unit.documents import export, replay

RECORDINGS: Final = (*NAMES, *REPLAYED, *CHAT_ROWS)
PATH: Final = Path(__file__).parent.parent / "recordings" / "chunks.json"
_CONTEXT: Final = SpanContext("production", "1.2.3")
_RULES: Final = compile_rules((), ())
_DIGITS: Final = 16


def digest_of(name: str, content: ContentChoice) -> str:
    """A digest of all that is sent of a recording's turns, and of what is remembered of them."""
    found = sha256()
    for piece in _pieces(name, content):
        found.update(piece)
    return found.hexdigest()[:_DIGITS]


def written_down() -> dict[str, dict[str, str]]:
    """The digests by recording and content choice."""
    found: dict[str, dict[str, str]] = json.loads(PATH.read_text(encoding="utf-8"))
    return found


def _make_masker() -> Masker:
    return Masker(_RULES, bytes(32))


def _pieces(name: str, content: ContentChoice) -> Iterator[bytes]:
    policies = Policies(
        content=content,
        temporary=TemporaryPolicy.FULL,
        copies=CopyPolicy.EXPORT,
        native=NativePolicy.DUPLICATE,
    )
    for key, record in sorted(replay(name).records.items()):
        made = export(record, deadline_passed=True, policies=policies, mask=_make_masker)
        if isinstance(made, Exported):
            yield from (encode_trace(trace, _CONTEXT) for trace in made.traces)
            yield repr(made.sent).encode()
        else:
            yield f"{key} {made}".encode()


if __name__ == "__main__":
    digests = {
        name: {content.value: digest_of(name, content) for content in ContentChoice} for name in RECORDINGS
    }
    PATH.write_text(json.dumps(digests, indent=2) + "\n", encoding="utf-8")
