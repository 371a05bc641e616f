"""The flow over memory, with a clock that never waits."""
