"""What the change streams tell, what is open because of it, and how far a stream may be checkpointed."""
