"""A strict OTLP/HTTP receiver for tests."""

from tests.fakes.otlp.decoding import ReceivedPoint, ReceivedSpan
from tests.fakes.otlp.server import FakeReceiver, Reply

__all__ = ["FakeReceiver", "ReceivedPoint", "ReceivedSpan", "Reply"]
