"""The same cases over the real adapters and over those in memory: where they differ, the unit tests of the flow lie."""
