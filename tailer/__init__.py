"""Tails LibreChat's change streams and rebuilds every turn as a Langfuse trace."""

__version__ = "0.1.0"
