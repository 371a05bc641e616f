"""Fits the interpreter to a daemon: small memory with several threads, and few walks over what never changes."""

import ctypes
import gc

_ARENA_MAX = -8
"""glibc's `M_ARENA_MAX`."""
_ARENAS = 2
"""The driver's threads would each get an arena of their own, and each arena keeps what one large batch once needed."""
_YOUNG_OBJECTS = 10_000
"""A round of turns makes thousands of objects that die together: collecting after 700, the default, finds them alive."""


def fit_interpreter() -> None:
    """Called once, when everything is imported; outside glibc the allocator is left as it is."""
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_ARENA_MAX, _ARENAS)
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, 10, 10)
