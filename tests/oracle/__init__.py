"""The oracle: turns are written all the time while everything fails by a seeded schedule, and at the end each one is
accounted for."""
