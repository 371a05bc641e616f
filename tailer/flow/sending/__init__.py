"""From what a lane hands over to an acknowledged batch."""
