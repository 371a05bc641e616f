"""Moved to `tests.rows`; here until every test imports it from there."""

from tests.rows import ALICE, BOB, NOW, answer, question, transaction

__all__ = ["ALICE", "BOB", "NOW", "answer", "question", "transaction"]
