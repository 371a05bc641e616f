"""Masking as a caller sees it: placeholders, structured values, the operator's own rules, failing closed."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailer.core.masking.masker import Masker, MaskingError, compile_rules

KEY = b"a deployment's own key"
RULES = compile_rules([], ["ssn", "diagnosis"])
OPERATOR_RULES = compile_rules([r"EMP-\d{4,8}", r"project (?P<value>\w{1,32})", r"\b[a-c]{2}\b"], ["ssn"])

PLANTED = st.sampled_from(
    [
        "anna@example.com",
        "4111 1111 1111 1111",
        "DE89370400440532013000",
        "+49 30 901820",
        "sk-ant-" + "a1B2" * 8,
        "ghp_" + "a1B2" * 9,
        "mongodb://user:Geheim77@db/x",
        "password=hunter2",
    ]
)
FRAGMENTS = st.one_of(
    st.text(max_size=12),
    PLANTED,
    st.sampled_from(
        [
            " ",
            "\n",
            '"',
            "[email:",
            "3f9a1c0b7d2e]",
            "]",
            "://",
            "@",
            "=",
            "ssn",
            "+1",
            "aa",
            "EMP-12345",
            "\ud800",
        ]
    ),
)
TEXTS = st.lists(FRAGMENTS, max_size=8).map("".join)
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), TEXTS)
KEYS = st.one_of(
    st.text(max_size=6),
    st.sampled_from(["ssn", "password", "a@b.io", "A@b.io", "phone", "mistral_key", "token"]),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


def mask(text: str) -> str:
    """The text under the built-in rules."""
    return Masker(RULES, KEY).mask_text(text)


def shape(value: object) -> object:
    """The value with its keys and leaves taken out."""
    if isinstance(value, dict):
        return [shape(inner) for inner in value.values()]
    if isinstance(value, list):
        return [shape(inner) for inner in value]
    return "leaf"


@given(TEXTS)
def test_masking_a_text_twice_is_masking_it_once(text: str) -> None:
    """What is masked has nothing left to mask, under operator rules too."""
    masker = Masker(OPERATOR_RULES, KEY)
    once = masker.mask_text(text)

    assert once == masker.mask_text(once)


def test_what_a_replacement_lays_bare_is_masked_in_the_same_call() -> None:
    """The pieces on both sides of a placeholder are texts of their own, and are searched as such."""
    masker = Masker(compile_rules([r"EMP-\d{5}", r"^left", r"left$"], []), KEY)
    masked = masker.mask_text("a left" + "EMP-12345" + "left b")

    assert "left" not in masked


@given(VALUES)
def test_masking_a_value_twice_is_masking_it_once(value: object) -> None:
    """Nested values and the JSON inside their strings have nothing left to mask either."""
    masker = Masker(OPERATOR_RULES, KEY)
    once = masker.mask_value([value, json.dumps(value)])

    assert once == masker.mask_value(once)


@given(VALUES.filter(lambda value: "ssn" not in json.dumps(value)))
def test_masking_keeps_the_shape_of_a_value(value: object) -> None:
    """Lists keep their length and order, dictionaries their number of entries."""
    assert shape(value) == shape(Masker(RULES, KEY).mask_value(value))


@given(st.text(max_size=30), PLANTED, st.text(max_size=30))
def test_no_planted_secret_survives(before: str, secret: str, after: str) -> None:
    """Whatever surrounds it, a secret set apart by blanks is gone."""
    masked = mask(f"{before}\n{secret}\n{after}")

    assert secret not in masked
    assert "Geheim77" not in masked


@given(st.text(max_size=30), PLANTED)
def test_no_planted_secret_survives_inside_nested_json(words: str, secret: str) -> None:
    """Tool arguments are JSON in a string; escapes do not hide anything."""
    arguments = json.dumps({"note": words + "\n" + secret, "deep": json.dumps([secret])})

    masked = str(Masker(RULES, KEY).mask_value({"arguments": arguments}))

    assert secret not in masked


def test_equal_values_get_equal_placeholders_in_any_spelling() -> None:
    """Case, separators and the international prefix do not make another value; another address does."""
    assert mask("Anna@Example.com") == mask("anna@example.com") != mask("anne@example.com")
    assert mask("4111 1111 1111 1111") == mask("4111111111111111")
    assert mask("DE89 3704 0044 0532 0130 00") == mask("de89370400440532013000")
    assert mask("0049 30 901820") == mask("+49 30 901820")


def test_another_key_gives_another_placeholder() -> None:
    """Two deployments cannot compare what they masked, and a placeholder does not show its value."""
    here, there = (Masker(RULES, key).mask_text("anna@example.com") for key in (KEY, b"another deployment's"))

    assert here != there
    assert here.startswith("[email:")
    assert len("[email:]") + 12 == len(here)


def test_a_short_key_is_refused() -> None:
    """With a guessable key every phone number could be tried."""
    with pytest.raises(ValueError, match="needs at least 16"):
        Masker(RULES, b"short")


def test_no_tag_is_all_digits_so_that_a_number_in_brackets_is_still_masked() -> None:
    """`[phone:` before twelve digits protects nothing."""
    masker = Masker(RULES, KEY)
    tags = [masker.mask_text(f"user{number}@example.com")[7:-1] for number in range(2000)]

    assert not any(tag.isdecimal() for tag in tags)
    assert "493012345678" not in masker.mask_text("[phone:+493012345678]")


def test_replacements_are_counted_by_rule() -> None:
    """Each replacement counts once, under the name in its placeholder; the counts given out are a copy."""
    masker = Masker(RULES, KEY)
    masker.mask_value(["a@b.io and c@d.io", {"ssn": "1"}, "4111111111111111"])

    masker.counts.clear()

    assert Counter(email=2, field=1, card=1) == masker.counts


def test_masked_fields_lose_their_whole_value_wherever_they_are() -> None:
    """Numbers, lists and nested JSON text too; null and other spellings of the name stay."""
    value = {
        "ssn": 123,
        "a": [{"diagnosis": ["x", "y"]}],
        "SSN": "open",
        "args": '{"ssn": "078-05", "n": 1}',
        "b": {"ssn": None},
    }

    masked = Masker(RULES, KEY).mask_value(value)

    assert isinstance(masked, dict)
    assert str(masked["ssn"]).startswith("[field:")
    assert str(masked["a"][0]["diagnosis"]).startswith("[field:")
    assert masked["SSN"] == "open"
    assert masked["b"] == {"ssn": None}
    arguments = json.loads(masked["args"])
    assert arguments["n"] == 1
    assert arguments["ssn"].startswith("[field:")


@pytest.mark.parametrize(
    "text",
    [
        'Result: {"ssn": "078-05-1120", "n": 1}',
        '```json\n{"ssn" : "078-05-1120"}\n```',
        '{"n": 1, "ssn": "078-05-11',
        '{"ssn": {"a": ["078-05-1120"], "b": "}"',
        "{'ssn': '078-05-1120'}",
        '"{\\"ssn\\": \\"078-05-1120\\"}"',
        '{"ssn": "x\\"078-05-1120"} and more',
    ],
)
def test_masked_fields_are_found_in_text_that_is_not_json(text: str) -> None:
    """Code blocks, cut-off arguments and Python dictionaries do not parse and are masked all the same."""
    assert "078-05" not in str(Masker(RULES, KEY).mask_value(text))


def test_text_around_a_masked_field_stays() -> None:
    """A value that ends is masked up to its end only."""
    masked = mask('see {"ssn": {"a": "]}"}, "n": 1} there')

    assert masked.startswith('see {"ssn": [field:')
    assert masked.endswith('], "n": 1} there')


def test_a_repeated_key_cannot_hide_a_value_from_the_parser() -> None:
    """JSON keeps the last of two equal keys; the first one must not stay in the text."""
    assert "a@b.io" not in str(Masker(RULES, KEY).mask_value('{"x": "a@b.io", "x": "y"}'))


def test_json_text_without_secrets_stays_byte_for_byte() -> None:
    """Only what was masked is written anew."""
    text = '{ "n":1.50,\n "u":"\\u00e9", "big": ' + "9" * 5000 + "}"

    assert text == Masker(RULES, KEY).mask_value(text)


def test_members_named_like_secrets_are_masked() -> None:
    """In a structured value the key says what the value is; a schema or a count is no secret."""
    masked = Masker(RULES, KEY).mask_value(
        {
            "password": "sesame",
            "apiKey": "abcd1234",
            "max_tokens": 4096,
            "token": {"type": "string"},
            "key": "v",
        }
    )

    assert isinstance(masked, dict)
    assert str(masked["password"]).startswith("[secret:")
    assert str(masked["apiKey"]).startswith("[secret:")
    assert (masked["max_tokens"], masked["token"], masked["key"]) == (4096, {"type": "string"}, "v")


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("phone", "5551234567", "phone"),
        ("phone", 15551234567, "phone"),
        ("phones", ["Anna", ["5551234567"]], "phone"),
        ("mistral_key", "abcdefghij0123456789abcdefghij01", "api-key"),
        ("Authorization", "Basic amFuZTpodW50ZXI=", "bearer"),
    ],
)
def test_what_stands_under_a_key_is_masked_as_behind_it_in_a_text(key: str, value: object, rule: str) -> None:
    """In the arguments of a tool, in JSON text and in prose: the cue is the same word."""
    masker = Masker(compile_rules([], [], switched_off=["secret"]), KEY)
    prose = masker.mask_text(f"{key}: {str(value).strip('[]')}")
    member, text = masker.mask_value({key: value}), masker.mask_value(json.dumps({key: value}))

    for masked in (prose, json.dumps(member), str(text)):
        assert f"[{rule}:" in masked
    assert json.loads(str(text)) == member


def test_only_what_a_key_announces_is_masked_below_it() -> None:
    """Digits under another key are a number like any other, and so are those of an object below a telephone."""
    value = {"order": "5551234567", "ids": [15551234567], "phone": {"id": "5551234567"}, "price": 5551234}

    assert Masker(RULES, KEY).mask_value(value) == value


def test_the_rest_of_a_value_stays_where_its_key_is_a_cue() -> None:
    masked = Masker(RULES, KEY).mask_value({"phone": "5551234567 (ask for Anna, room 12)"})

    assert isinstance(masked, dict)
    assert masked["phone"].startswith("[phone:")
    assert masked["phone"].endswith("] (ask for Anna, room 12)")


def test_a_key_that_is_masked_is_masked_each_time() -> None:
    """Keys that hold nothing are remembered, and no others."""
    masked = Masker(RULES, KEY).mask_value([{"a@b.io": 1}, {"a@b.io": 2}])

    assert "b.io" not in str(masked)


def test_the_name_of_a_secret_covers_all_values_inside_its_lists_and_objects() -> None:
    value = {
        "password": ["hunter2", {"value": "hunter22", "length": 8, "type": "string", "shown": False}],
        "apiKey": '["abcd1234"]',
        "after": ["hunter2"],
    }

    masked = Masker(RULES, KEY).mask_value(value)

    assert isinstance(masked, dict)
    first, rest = masked["password"]
    assert first.startswith("[secret:")
    assert rest.pop("value").startswith("[secret:")
    assert rest == {"length": 8, "type": "string", "shown": False}
    assert "abcd1234" not in masked["apiKey"]
    assert masked["after"] == ["hunter2"]


def test_a_placeholder_makes_no_secret_of_the_text_around_it() -> None:
    """A value inside a structure is masked where it is taken, and looked at again with the structure."""
    masker = Masker(RULES, KEY)
    once = masker.mask_value({"Authorization": ["granted to anna@example.com on request"]})

    assert "granted to [email:" in str(once)
    assert masker.mask_value(once) == once


def test_keys_are_masked_and_two_spellings_stay_two_entries() -> None:
    """An address can be a key."""
    masked = Masker(RULES, KEY).mask_value({"a@b.io": 1, "A@b.io": 2})

    assert isinstance(masked, dict)
    assert list(masked.values()) == [1, 2]
    assert "b.io" not in str(masked)


def test_numbers_that_are_cards_are_masked_and_others_stay() -> None:
    """A card number need not be a string."""
    masked = Masker(RULES, KEY).mask_value([4111111111111111, 4111111111111112, 1.5, True, 10**50])

    assert isinstance(masked, list)
    assert str(masked[0]).startswith("[card:")
    assert masked[1:] == [4111111111111112, 1.5, True, 10**50]


def test_what_lies_too_deep_is_withheld() -> None:
    """Neither nested lists nor nested JSON text get around the depth bound or break the process."""
    value: object = "plain words"
    for _ in range(5000):
        value = [value]

    assert "plain words" not in str(Masker(RULES, KEY).mask_value(value))
    assert str(Masker(RULES, KEY).mask_value("[" * 100_000 + "]" * 100_000)).startswith("[too-deep:")


def test_a_value_that_is_not_json_is_a_failure() -> None:
    """What cannot be read cannot be masked; the message does not show it."""
    with pytest.raises(MaskingError, match="type bytes") as caught:
        Masker(RULES, KEY).mask_value({"x": b"secret bytes"})

    assert "secret bytes" not in str(caught.value)


def test_placeholders_stay_as_they_are() -> None:
    """Those of another key too, since they may come from before a change of keys."""
    assert mask("[email:3f9a1c0b7d2e] [card:aa11bb22cc33]") == "[email:3f9a1c0b7d2e] [card:aa11bb22cc33]"


def test_a_rule_can_be_switched_off() -> None:
    """Its values stay, those of others do not."""
    masked = Masker(compile_rules([], [], switched_off=["phone"]), KEY).mask_text("+49 30 901820, a@b.io")

    assert masked.startswith("+49 30 901820, [email:")
    with pytest.raises(ValueError, match="no masking rule 'fone'"):
        compile_rules([], [], switched_off=["fone"])


def test_lone_surrogates_and_nul_do_no_harm() -> None:
    """Broken text is masked like any other; JSON text keeps surrogates escaped."""
    masker = Masker(RULES, KEY)

    assert masker.mask_text("\ud800\x00a@b.io\udfff").startswith("\ud800\x00[email:")
    masked = masker.mask_value('{"a": "\\ud800", "b": "a@b.io"}')
    assert isinstance(masked, str)
    assert '"\\ud800"' in masked
