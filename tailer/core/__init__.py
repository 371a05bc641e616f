"""The pure part: from change hints and documents to traces. No await, no clock, no I/O."""
