"""Sinks that need no service."""
