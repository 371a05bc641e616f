"""Precision and recall of the built-in rules over the hand-made examples in `tests/corpus/masking.jsonl`.

Each line has a text and its expected spans `[rule, start, end]`. U+241F stands inside every example token and
is taken out before use, so that no scanner takes the file for a leak; spans count without it.
"""

import json
import re
from collections import Counter
from pathlib import Path

from tailer.core.masking.masker import Masker, compile_rules

CORPUS = Path(__file__).parent.parent / "corpus" / "masking.jsonl"
FEWEST_EXAMPLES = 300
LOWEST_PRECISION = 0.98
LOWEST_RECALL = 0.97
LOWEST_OF_A_RULE = 0.9
PLACEHOLDER = re.compile(r"\[([a-z-]+):[0-9a-f]{12}\]")


def found_values(text: str, masked: str) -> list[tuple[str, str]]:
    """The (rule, value) pairs that were replaced, read back by laying the masked text over the original."""
    parts = PLACEHOLDER.split(masked)
    expression = "(.*?)".join(re.escape(part) for part in parts[::2])
    laid_over = re.fullmatch(expression, text, re.DOTALL)
    assert laid_over is not None
    return [
        (name, value)
        for name, value in zip(parts[1::2], laid_over.groups(), strict=True)
        if not PLACEHOLDER.fullmatch(value)
    ]


def test_precision_and_recall_hold_their_floors() -> None:
    """At least 98 % of what is masked is what was expected, at least 97 % of what was expected is masked."""
    rules = compile_rules([], [])
    right: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    lines = CORPUS.read_text("utf-8").splitlines()
    for line in lines:
        example = json.loads(line)
        text = example["text"].replace("\u241f", "")
        expected = Counter((name, text[start:end]) for name, start, end in example["spans"])
        found = Counter(found_values(text, Masker(rules, bytes(16)).mask_text(text)))
        for counter, pairs in (
            (right, found & expected),
            (wrong, found - expected),
            (missed, expected - found),
        ):
            for (name, value), count in pairs.items():
                counter[name] += count
                if counter is not right:
                    print("wrong" if counter is wrong else "missed", name, repr(value), "in", repr(text))

    def report(name: str, hits: int, extra: int, lost: int) -> tuple[float, float]:
        precision, recall = hits / max(1, hits + extra), hits / max(1, hits + lost)
        counts = f"found {hits:4} wrong {extra:3} missed {lost:3}"
        print(f"{name:20} {counts} precision {precision:.3f} recall {recall:.3f}")
        return precision, recall

    for name in sorted(right | wrong | missed):
        assert min(report(name, right[name], wrong[name], missed[name])) >= LOWEST_OF_A_RULE
    precision, recall = report("all", right.total(), wrong.total(), missed.total())

    assert len(lines) >= FEWEST_EXAMPLES
    assert precision >= LOWEST_PRECISION
    assert recall >= LOWEST_RECALL


def test_every_built_in_rule_has_an_example() -> None:
    """A rule that nothing tries could be broken unseen."""
    examples = CORPUS.read_text("utf-8").splitlines()
    tried = {name for line in examples for name, _, _ in json.loads(line)["spans"]}

    untried = {rule.name for rule in compile_rules([], []).rules} - tried

    assert untried == set()
