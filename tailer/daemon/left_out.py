"""Notices if most of LibreChat's answers are left out: a daemon that sends nothing must not look healthy.

Copies and temporary chats are the exception in a LibreChat. If they are the rule, a setting of LibreChat (a retention
mode, temporary chats by default) or a clock is the reason, and the operator should decide knowingly. The same holds
if a rule asks for what may not be read.
"""

from collections import deque
from typing import Final

from tailer.core.turn.entry_outcomes import UNREAD_OUTCOMES
from tailer.core.turn.turns import Exclusion, Outcome
from tailer.events import Emit, MostTurnsLeftOut, TurnDone

_WINDOW: Final = 50
_LEAST: Final = 20
_SHARE: Final = 0.9
_LEFT_OUT: Final = frozenset([Exclusion.COPIED.value, Exclusion.TEMPORARY.value, *UNREAD_OUTCOMES])
_SHOWN: Final = frozenset(outcome.value for outcome in Outcome) - _LEFT_OUT


class LeftOutWatch:
    """Looks at the outcomes of the last turns. It reports at most once per window of turns."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._outcomes: deque[str] = deque(maxlen=_WINDOW)
        self._quiet = 0

    def note(self, event: TurnDone) -> None:
        """Count one more turn."""
        if event.outcome not in _LEFT_OUT and event.outcome not in _SHOWN:
            return
        self._outcomes.append(event.outcome)
        self._quiet = max(0, self._quiet - 1)
        if self._quiet or len(self._outcomes) < _LEAST:
            return
        for reason in sorted(_LEFT_OUT):
            number = self._outcomes.count(reason)
            if number >= _SHARE * len(self._outcomes):
                self._quiet = _WINDOW
                self._emit(MostTurnsLeftOut(reason, number, len(self._outcomes)))
