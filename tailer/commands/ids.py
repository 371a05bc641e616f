"""Ids of LibreChat on the command line."""

import argparse


def read_id(text: str) -> str:
    """An id as MongoDB can hold it; raises ArgumentTypeError for bytes that are no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(
            "it has bytes that are no UTF-8, and no id of LibreChat has such"
        ) from None
    return text
