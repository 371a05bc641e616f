"""Which conversations are exported: the same ones on every instance, before and after every restart."""

from hashlib import sha256


def is_sampled(conversation_id: str, rate: float) -> bool:
    """Whether a whole conversation belongs to the sample; `rate` is a share between 0 and 1.

    The conversation id decides, so that no conversation is shown in part. A higher rate keeps every conversation
    that a lower rate kept.
    """
    if rate >= 1.0:
        return True
    digest = sha256(b"sample:" + conversation_id.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") < rate * 2**64
