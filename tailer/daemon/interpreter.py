"""Adapts the interpreter to a daemon: little memory with several threads, and few walks over what never changes."""

import ctypes
import gc

_ARENA_MAX = -8
"""glibc's `M_ARENA_MAX`."""
_MMAP_THRESHOLD = -3
"""glibc's `M_MMAP_THRESHOLD`; once set, it does not grow by itself."""
_MAPPED_BYTES = 256 * 1024
"""A larger block (a server's reply, a request) returns to the system when it is freed. Otherwise it would stay in a
heap that keeps the size of its fullest moment."""
_ARENAS = 2
"""Without this limit each of the driver's threads would get an arena, and each arena would keep what one large batch
once needed."""
_YOUNG_OBJECTS = 20_000
"""A round of turns makes thousands of objects that die together. Collecting after 700, the default, would find them
alive again and again."""


def fit_interpreter() -> None:
    """Called once, when everything is imported; outside glibc the allocator is left as it is."""
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_ARENA_MAX, _ARENAS)
        set_option(_MMAP_THRESHOLD, _MAPPED_BYTES)
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, 10, 10)
