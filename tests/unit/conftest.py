"""Hypothesis for all unit tests: the same examples on every run, and no limit on the time of one."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "tailer",
    derandomize=True,
    deadline=None,
    max_examples=80,
    print_blob=False,
    # How long data takes to draw depends on the machine, and says nothing about the code.
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("tailer")
