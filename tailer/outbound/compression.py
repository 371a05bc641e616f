"""gzip by an encoder that takes a fifth of the usual time for the same size. Equal input gives equal bytes."""

from typing import Final

from isal import isal_zlib

_GZIP: Final = 31
"""zlib's window bits for the gzip format. Its header then holds no time, so equal input gives equal bytes."""
_LEVEL: Final = 2
"""From 0 to 3; 3 costs more time than it saves bytes."""


def compress(content: bytes) -> bytes:
    """The content in the gzip format."""
    compressor = isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, _GZIP)
    packed: bytes = compressor.compress(content) + compressor.flush()
    return packed


def decompress(content: bytes) -> bytes:
    """What `compress` was given."""
    unpacked: bytes = isal_zlib.decompress(content, _GZIP)
    return unpacked
