"""Real English text in any amount: Python's own reference manual, which every Python carries.

Invented words or repeated ones would compress better or worse than what people and models write, and compression is
part of what is measured.
"""

import re
from dataclasses import dataclass
from pydoc_data.topics import topics
from random import Random
from typing import Final

_SHORTEST_PARAGRAPH: Final = 120
_SPACE: Final = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class Prose:
    """A source of text; the same seed gives the same texts."""

    sentences: tuple[str, ...]
    random: Random

    def write(self, characters: int) -> str:
        """A text of about this length, more often shorter or longer than exactly as long."""
        wanted = characters * self.random.uniform(0.5, 1.5)
        place = self.random.randrange(len(self.sentences))
        written: list[str] = []
        size = 0
        while size < wanted:
            sentence = self.sentences[place % len(self.sentences)]
            written.append(sentence)
            size += len(sentence) + 1
            # Now and then the subject changes, so that two texts rarely share more than a few sentences.
            place = place + 1 if self.random.random() < 0.7 else self.random.randrange(len(self.sentences))
        return " ".join(written)


def read_prose(seed: int) -> Prose:
    """The sentences of the manual, in its order."""
    sentences: list[str] = []
    for topic in sorted(topics):
        for paragraph in topics[topic].split("\n\n"):
            text = _SPACE.sub(" ", paragraph).strip()
            if len(text) >= _SHORTEST_PARAGRAPH:
                sentences += re.split(r"(?<=[.:]) (?=[A-Z])", text)
    return Prose(tuple(sentences), Random(seed))
