"""A real replica set and recorded traffic, for the demo and for the tests."""
