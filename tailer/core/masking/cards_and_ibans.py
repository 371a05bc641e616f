"""Rules for money: payment card numbers and IBANs, both verified by their checksum.

Owns: issuer prefixes and lengths (ISO/IEC 7812), the Luhn sum, IBAN lengths by country and the mod-97 sum. Refuses: to
guess. A number without a valid checksum is left alone, so order numbers and ISBNs survive.
"""

import re
from collections.abc import Iterator

from tailer.core.masking.detection import DIGITS, Rule, Span

# (first prefix, last prefix, lengths)
ISSUERS: tuple[tuple[int, int, frozenset[int]], ...] = (
    (4, 4, frozenset({13, 16, 19})),
    (51, 55, frozenset({16})),
    (2221, 2720, frozenset({16})),
    (2200, 2204, frozenset({16, 17, 18, 19})),
    (34, 34, frozenset({15})),
    (37, 37, frozenset({15})),
    (300, 305, frozenset({14, 16})),
    (3095, 3095, frozenset({14, 16})),
    (36, 36, frozenset({14})),
    (38, 39, frozenset({14, 16})),
    (3528, 3589, frozenset({16, 17, 18, 19})),
    (6011, 6011, frozenset({16, 19})),
    (644, 649, frozenset({16, 19})),
    (65, 65, frozenset({16, 19})),
    (62, 62, frozenset({16, 17, 18, 19})),
    (60, 60, frozenset({16})),
    (81, 82, frozenset({16})),
    (508, 508, frozenset({16})),
    (5018, 5018, frozenset(range(13, 20))),
    (5020, 5020, frozenset(range(13, 20))),
    (5038, 5038, frozenset(range(13, 20))),
    (5893, 5893, frozenset(range(13, 20))),
    (6304, 6304, frozenset(range(13, 20))),
    (6759, 6759, frozenset(range(13, 20))),
    (6761, 6763, frozenset(range(13, 20))),
    (9792, 9792, frozenset({16})),
)

# Length in characters, and the countries whose IBANs have it.
IBAN_COUNTRIES: dict[int, str] = {
    15: "NO",
    16: "BE",
    18: "DK FI FK FO GL NL SD",
    19: "MK SI",
    20: "AT BA EE KZ LT LU MN XK",
    21: "CH HR LI LV",
    22: "BG BH CR DE GB GE IE ME RS VA",
    23: "AE GI IL IQ OM SO TL",
    24: "AD CZ ES MD PK RO SA SE SK TN VG",
    25: "LY PT ST",
    26: "IS TR",
    27: "BI DJ FR GR IT MC MR SM",
    28: "AL AZ BY CY DO GT HN HU LB NI PL SV",
    29: "BR EG PS QA UA",
    30: "JO KW MU YE",
    31: "MT SC",
    32: "LC",
    33: "RU",
}
IBAN_LENGTHS = {
    country: length for length, countries in IBAN_COUNTRIES.items() for country in countries.split()
}

SEPARATORS = " -.\u00a0\u2011\u202f"
CARD_RUN = re.compile(rf"[0-9][0-9{re.escape(SEPARATORS)}]{{11,}}")
GROUP = re.compile(r"[0-9]+")
FIRST_GROUP = re.compile(r"[0-9]{4}")
LONGEST_CARD = 19
SHORTEST_CARD = 13
CARD_GROUPS = frozenset(
    {(4, 4, 4, 1), (4, 4, 4, 4), (4, 4, 4, 4, 3), (4, 6, 5), (4, 6, 4), (4, 4, 5), (6, 13)}
)
MOST_GROUPS = max(map(len, CARD_GROUPS))
FIRST_GROUPS = frozenset({*range(SHORTEST_CARD, LONGEST_CARD + 1), *(groups[0] for groups in CARD_GROUPS)})

# The digits come first, so that the engine skips to the next digit and looks back only there.
IBAN_START = re.compile(r"[0-9](?<=(?<![A-Za-z0-9])[A-Za-z]{2}[0-9])[0-9](?=[ \-\u00a0\u202f]?[A-Za-z0-9])")
IBAN_SEPARATORS = " -\u00a0\u202f"

FIRST_DIGITS = frozenset(str(first)[0] for first, _, _ in ISSUERS)


def has_luhn_sum(digits: str) -> bool:
    """Whether the digits carry a valid Luhn check digit (ISO/IEC 7812-1)."""
    total = sum(map(int, digits[-1::-2]))
    return (total + sum(sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])) % 10 == 0


def is_card_number(digits: str) -> bool:
    """Whether length, issuer prefix and Luhn sum are those of a payment card."""
    length = len(digits)
    return any(
        length in lengths and first <= int(digits[: len(str(first))]) <= last
        for first, last, lengths in ISSUERS
    ) and has_luhn_sum(digits)


def is_iban(compact: str) -> bool:
    """Whether `compact` (upper case, no separators) has its country's length and a mod-97 sum of 1."""
    if IBAN_LENGTHS.get(compact[:2]) != len(compact):
        return False
    return int("".join(str(int(character, 36)) for character in compact[4:] + compact[:4])) % 97 == 1


def drop_separators(value: str) -> str:
    """The letters and digits of a number, in upper case."""
    return "".join(character for character in value if character.isalnum()).upper()


def _stands_alone(text: str, start: int, end: int) -> bool:
    before = text[start - 1] if start else " "
    after = text[end] if end < len(text) else " "
    if (before.isascii() and before.isalnum()) or (after.isascii() and after.isalnum()):
        return False
    # Digits after a decimal point are a fraction; digits after a plus sign are a telephone number.
    return before != "+" and not (before in ".," and start > 1 and text[start - 2].isdecimal())


def _ends_of_card(text: str, groups: list[Span], first: int) -> Iterator[int]:
    """The indices of groups with which a card number could end that starts with the group `first`, by their sizes."""
    sizes: list[int] = []
    digits = 0
    separator = ""
    for index in range(first, min(first + MOST_GROUPS, len(groups))):
        start, end = groups[index]
        if index > first:
            between = text[groups[index - 1][1] : start]
            separator = separator or between
            if len(between) != 1 or between != separator:
                return
        sizes.append(end - start)
        digits += end - start
        if digits > LONGEST_CARD:
            return
        if digits >= SHORTEST_CARD and (len(sizes) == 1 or tuple(sizes) in CARD_GROUPS):
            yield index


def find_cards(text: str) -> Iterator[Span]:
    """Card numbers, written together or in the printed groups, with one kind of separator."""
    for run in CARD_RUN.finditer(text):
        if FIRST_GROUP.search(text, *run.span()) is None:
            continue
        groups = [match.span() for match in GROUP.finditer(text, *run.span())]
        reached = 0
        for index, (start, group_end) in enumerate(groups):
            if index < reached or group_end - start not in FIRST_GROUPS or text[start] not in FIRST_DIGITS:
                continue
            for last in _ends_of_card(text, groups, index):
                end = groups[last][1]
                if is_card_number(drop_separators(text[start:end])) and _stands_alone(text, start, end):
                    reached = last + 1
                    yield start, end
                    break
                yield start, start


def find_ibans(text: str) -> Iterator[Span]:
    """IBANs, written together or with single blanks or hyphens between groups, in upper or lower case."""
    reached = 0
    for match in IBAN_START.finditer(text):
        start = match.start() - 2
        length = IBAN_LENGTHS.get(text[start : start + 2].upper())
        if length is None or start < reached:
            continue
        characters: list[str] = []
        end = start
        while end < len(text) and len(characters) < length:
            character = text[end]
            if character.isascii() and character.isalnum():
                characters.append(character)
            elif character not in IBAN_SEPARATORS or text[end - 1] in IBAN_SEPARATORS:
                break
            end += 1
        followed = end < len(text) and text[end].isascii() and text[end].isalnum()
        if not followed and is_iban("".join(characters).upper()):
            reached = end
            yield start, end
        else:
            yield start, start


RULES: tuple[Rule, ...] = (
    Rule(
        name="iban", triggers=DIGITS, find=find_ibans, normalise=drop_separators, shortest=min(IBAN_COUNTRIES)
    ),
    Rule(name="card", triggers=DIGITS, find=find_cards, normalise=drop_separators, shortest=SHORTEST_CARD),
)
