"""What `tailer doctor` asks and how it judges the answers."""
