"""What the change streams report, what is open because of it, and how far a stream may be checkpointed."""
