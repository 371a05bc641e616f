"""`tailer doctor`: looks at everything that a tailer needs, and says what to do about what is missing."""
