"""Rules for reaching a person: e-mail addresses and telephone numbers.

Owns: what an address looks like in running text, and which numbers count as telephone numbers. Refuses: bare digits. A
row of digits is more likely an identifier, a price or a date, so it is left alone unless it has a plus sign, a national
grouping, or a word such as "Tel." before it.
"""

import re
from collections.abc import Iterator

from tailer.core.masking.detection import DIGITS, Rule, Span

AT_SIGN = re.compile(r"@|%40")
LOCAL_CHARACTERS = frozenset("._%+-'")
# Letters before this code point (Latin, Greek, Cyrillic) are separated by blanks in running text. Letters of other
# scripts may touch an address ("请联系joe@example.com"). They are part of it only if it has no other letters.
FIRST_UNSPACED_SCRIPT = 0x0530
ASCII_DOMAIN = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+"
    r"(?:xn--[A-Za-z0-9-]{2,59}|[A-Za-z]{2,24})"
)
ANY_DOMAIN = re.compile(r"(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+[^\W\d_]{2,24}")
VERSION = re.compile(r"v?[0-9]+\.[0-9]+")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp", ".ico", ".bmp", ".avif")
URL_LOOKBACK = 128

SEPARATORS = r" ().\-/\u00a0\u2010\u2011\u202f"
NUMBER = re.compile(
    rf"[0-9](?=[0-9{SEPARATORS}]{{6}})[0-9]{{0,20}}(?:[{SEPARATORS}]{{1,3}}[0-9]{{1,20}}){{0,9}}"
)
PLUS = re.compile(r"(?:\(\+|\+\(|\+)\Z")
GAP = r"[ .\-/\u00a0\u2010\u2011\u202f]"
DATE = re.compile(
    rf"[0-9]{{1,2}}{GAP}[0-9]{{1,2}}{GAP}(?:[0-9]{{4}}|[0-9]{{2}}$)|(?:19|20)[0-9]{{2}}{GAP}"
    rf"(?:(?:19|20)[0-9]{{2}}\b|(?:0?[1-9]|1[0-2])(?:{GAP}|$))"
)
# ZIP+4 codes look like a short area code and a number.
POSTAL_CODE = re.compile(r"[0-9]{5}-[0-9]{4}")
NATIONAL = re.compile(
    "|".join(
        (
            rf"(?:1{GAP})?\(?[2-9][0-9]{{2}}(?:\) ?|[.\-\u2011/])[0-9]{{3}}[ .\-\u2011][0-9]{{4}}",
            rf"(?:1{GAP})?[2-9][0-9]{{2}} [2-9][0-9]{{2}}[ \-][0-9]{{4}}",
            r"00[1-9][0-9]{0,2}[ \-./(]{1,2}(?:[0-9]{1,8}[ \-./()]{1,2}){0,5}[0-9]{2,10}",
            rf"\(?0[1-9][0-9]{{0,4}}(?:\) ?| ?/ ?| - |{GAP})(?:[0-9]{{2,8}}{GAP}){{0,4}}[0-9]{{2,8}}",
            r"1[3-9][0-9][ \-][0-9]{4}[ \-][0-9]{4}",
            r"[78][ \-]?\(?[3489][0-9]{2}\)?[ \-]?[0-9]{3}[ \-][0-9]{2}[ \-][0-9]{2}",
            r"\(?[1-9][0-9]\)? 9?[0-9]{4}-[0-9]{4}",
            r"[6-9][0-9]{2} [0-9]{2} [0-9]{2} [0-9]{2}",
            r"[6-9][0-9]{4} [0-9]{5}",
        )
    )
)
CUE = re.compile(
    r"(?:\btel|phone|mobil|\bcell|\bcall\b|\bfax|whatsapp|\bsms\b|\btext me|\bring\b|appel"
    r"|t[ée]l[ée]|portable|handy|ruf"
    r"|erreich|tel[ée]f|m[óo]vil|ll[áa]m|celular|ligu?[ea]|telem[óo]vel"
    r"|\bbel\b|chiam|cellulare|puhelin|\btlf|komórk"
    r"|тел|звони|мобильн|电话|手机|電話|携帯|聯絡|联系|전화|휴대|هاتف|جوال|טלפון|फोन|điện thoại|โทร)"
    r"[^0-9\n]{0,24}\Z",
    re.IGNORECASE,
)
CUE_LOOKBACK = 40
CUE_BACKWARDS = re.compile(r"[^0-9\n]*")
SHORTEST_CUE = 2
SHORTEST_NUMBER = 7
SHORTEST_INTERNATIONAL = 8
SHORTEST_NATIONAL = 9
LONGEST_NUMBER = 15
# A character before a number that makes it something else: an amount, an issue, or a part of a word, path or fraction.
FOREIGN_BEFORE = frozenset("$€£¥₹#_\\%~^*@&")


def _local_start(text: str, at: int, lowest: int) -> int:
    """The index at which the local part directly before the index `at` starts; `at` itself if there is none."""
    start = at
    while start > lowest:
        character = text[start - 1]
        if not (
            character in LOCAL_CHARACTERS or (character.isalnum() and ord(character) < FIRST_UNSPACED_SCRIPT)
        ):
            break
        start -= 1
    if start == at:
        while start > lowest and text[start - 1].isalnum():
            start -= 1
    while start < at and text[start] in LOCAL_CHARACTERS and text[start] not in "_+":
        start += 1
    return start


def _is_address(text: str, start: int, at: int, domain: str) -> bool:
    local = text[start:at]
    if not any(character.isalnum() for character in local) or local == "git":
        return False
    if VERSION.match(domain) or domain.lower().endswith(IMAGE_SUFFIXES):
        return False
    # In "scheme://name:password@host" the part before the at sign is not a mailbox.
    before = text[max(0, start - URL_LOOKBACK) : start]
    scheme = before.rfind("://")
    return (
        scheme < 0
        or not set(before[scheme + 3 :]).isdisjoint(" \t\n/?#<>\"'")
        or before.endswith("mailto://")
    )


def find_emails(text: str) -> Iterator[Span]:
    """E-mail addresses, including those with an at sign escaped for a URL or with letters beyond ASCII."""
    reached = 0
    for match in AT_SIGN.finditer(text):
        at, after = match.span()
        if at < reached:
            continue
        domain = ASCII_DOMAIN.match(text, after) or ANY_DOMAIN.match(text, after)
        if domain is None:
            continue
        start = _local_start(text, at, reached)
        if start < at and _is_address(text, start, at, domain.group()):
            reached = domain.end()
            yield start, reached


def _fold_email(value: str) -> str:
    return value.replace("%40", "@").lower()


def _has_foreign_neighbours(text: str, start: int, end: int) -> bool:
    before = text[start - 1] if start else " "
    after = text[end] if end < len(text) else " "
    following = text[end + 1] if end + 1 < len(text) else " "
    if before in FOREIGN_BEFORE or (before.isalnum() and ord(before) < FIRST_UNSPACED_SCRIPT):
        return True
    if (
        before in ".,:-/+="
        and start > 1
        and (text[start - 2].isdecimal() or (before in "-/" and text[start - 2].isalnum()))
    ):
        return True
    if after in "%€$£¥_°@" or (after.isalnum() and ord(after) < FIRST_UNSPACED_SCRIPT):
        return True
    return after in ",:-/." and (following.isdecimal() or (after in "-/" and following.isalnum()))


def _international_end(text: str, start: int, end: int) -> int:
    """Where a number with a plus sign ends: at the last group that keeps it within E.164's 15 digits."""
    longest = 11 if text[start] == "1" else LONGEST_NUMBER
    count = 0
    cut = start
    for group in re.finditer(r"[0-9]+", text[start:end]):
        count += len(group.group())
        if count > longest:
            break
        cut = start + group.end()
    return cut


def _is_announced(text: str, start: int) -> bool:
    """Whether a word for telephone stands before a number, without a digit or the end of a line between them."""
    before = text[max(0, start - CUE_LOOKBACK) : start]
    reach = CUE_BACKWARDS.match(before[::-1])
    length = reach.end() if reach is not None else 0
    return length >= SHORTEST_CUE and CUE.search(text, start - length, start) is not None


def find_phones(text: str) -> Iterator[Span]:
    """Numbers with a plus sign, in a national grouping, or after a word for telephone."""
    for match in NUMBER.finditer(text):
        start, end = match.span()
        plus = PLUS.search(text, max(0, start - 2), start)
        if plus is not None:
            end = _international_end(text, start, end)
            count = sum(map(str.isdecimal, text[start:end]))
            start = plus.start()
            if (
                count >= SHORTEST_INTERNATIONAL
                and text[plus.end()] != "0"
                and not _has_foreign_neighbours(text, start, end)
            ):
                yield start, end
            else:
                yield start, start
            continue
        if text[start - 1 : start] == "(" and ")" in text[start:end]:
            start -= 1
        number = text[start:end]
        count = sum(map(str.isdecimal, number))
        if (
            not SHORTEST_NUMBER <= count <= LONGEST_NUMBER
            or _has_foreign_neighbours(text, start, end)
            or DATE.match(number)
        ):
            continue
        if (
            count >= SHORTEST_NATIONAL and NATIONAL.fullmatch(number) and not POSTAL_CODE.fullmatch(number)
        ) or _is_announced(text, start):
            yield start, end
        else:
            yield start, start


def _announces_phone(before: str) -> bool:
    return _is_announced(before, len(before))


def _fold_phone(value: str) -> str:
    digits = "".join(character for character in value if character.isdecimal())
    if value.lstrip("(").startswith("+"):
        return "+" + digits
    return "+" + digits[2:] if digits.startswith("00") else digits


RULES: tuple[Rule, ...] = (
    Rule(
        name="email", triggers=("@", "%40"), find=find_emails, normalise=_fold_email, shortest=len("a@b.cd")
    ),
    Rule(
        name="phone",
        triggers=DIGITS,
        find=find_phones,
        normalise=_fold_phone,
        shortest=SHORTEST_NUMBER,
        is_announced=_announces_phone,
    ),
)
