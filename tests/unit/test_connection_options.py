"""The options of a connection: what the URI gives wins, what it does not give is the tailer's."""

import pytest

from tailer.settings.connection_options import (
    describe_connections,
    describe_options,
    doubt_options,
    fill_options,
    given_options,
    ignored_preference,
    uses_tls,
)

PLAIN = "mongodb://h/LibreChat?replicaSet=rs"


def filled(uri: str) -> dict[str, object]:
    return fill_options(uri, application="tailer", socket_milliseconds=30_000)


def shown(uri: str) -> dict[str, tuple[str, str]]:
    return {option.name: (option.value, option.source) for option in describe_options(uri, keeps_state=False)}


def test_what_the_uri_does_not_give_is_filled_in() -> None:
    assert filled(PLAIN) == {
        "serverSelectionTimeoutMS": 2000,
        "heartbeatFrequencyMS": 10_000,
        "serverMonitoringMode": "poll",
        "connectTimeoutMS": 3000,
        "retryReads": True,
        "retryWrites": True,
        "maxPoolSize": 16,
        "appName": "tailer",
        "socketTimeoutMS": 30_000,
    }


@pytest.mark.parametrize(
    "option",
    [
        "serverSelectionTimeoutMS=30000", "connecttimeoutms=20000", "socketTimeoutMS=45000", "maxPoolSize=5",
        "appname=LibreChat", "retryWrites=false", "retryReads=false", "heartbeatFrequencyMS=5000",
    ],
)  # fmt: skip
def test_an_option_of_the_uri_is_left_to_it_however_it_is_written(option: str) -> None:
    given = option.partition("=")[0].lower()

    assert given not in {name.lower() for name in filled(f"{PLAIN}&{option}")}
    assert len(filled(f"{PLAIN}&{option}")) == len(filled(PLAIN)) - 1


def test_a_pool_is_never_smaller_than_the_uri_wants_it_at_least() -> None:
    """The driver refuses such a pair."""
    assert filled(f"{PLAIN}&minPoolSize=40")["maxPoolSize"] == 40
    assert filled(f"{PLAIN}&minPoolSize=2")["maxPoolSize"] == 16


def test_a_pool_that_is_too_small_for_the_streams_is_raised_and_doubted() -> None:
    """With one connection a stream that waits for events lets nothing else through."""
    small = f"{PLAIN}&maxpoolsize=1"

    assert filled(small)["maxPoolSize"] == 5
    assert shown(small)["maxPoolSize"] == ("5 (1 of the URI is too few)", "always")
    assert "maxpoolsize" not in shown(small)
    assert [words.partition(":")[0] for words in doubt_options(small, "TAILER_MONGO_URI")] == [
        "maxPoolSize=1 in TAILER_MONGO_URI is too small"
    ]


@pytest.mark.parametrize("size", ["0", "5", "100"])
def test_a_pool_without_limit_or_of_a_fit_size_is_left_as_it_is(size: str) -> None:
    uri = f"{PLAIN}&maxPoolSize={size}"

    assert "maxPoolSize" not in filled(uri)
    assert shown(uri)["maxPoolSize"] == (size, "URI")
    assert list(doubt_options(uri, "TAILER_MONGO_URI")) == []


def test_options_are_read_as_the_driver_separates_and_decodes_them() -> None:
    given = given_options("mongodb://h/?tlsCAFile=/etc/my+authorities%2B.pem;retryWrites=false")

    assert given == {"tlscafile": "/etc/my authorities+.pem", "retrywrites": "false"}


def test_one_limit_for_everything_takes_the_place_of_the_limit_of_a_socket() -> None:
    assert "socketTimeoutMS" not in filled(f"{PLAIN}&timeoutMS=5000")


def test_what_is_in_force_is_shown_with_where_it_comes_from_and_no_secret() -> None:
    options = shown(
        "mongodb://u:geheim@h/?readPreference=secondaryPreferred&readPreferenceTags=dc:east&retryWrites=false"
        "&tlsCertificateKeyFilePassword=geheim"
    )

    assert options["retryWrites"] == ("false", "URI")
    assert options["connectTimeoutMS"] == ("3000", "default")
    assert options["socketTimeoutMS"] == ("30000", "default")
    assert options["readPreference"] == ("primary (secondaryPreferred of the URI is not used)", "always")
    assert "readPreferenceTags" not in options
    assert "geheim" not in str(options)


def test_a_preference_for_the_primary_is_nothing_to_warn_of() -> None:
    assert ignored_preference(f"{PLAIN}&readPreference=primary") is None
    assert ignored_preference(PLAIN) is None
    assert ignored_preference(f"{PLAIN}&readpreference=nearest") == "nearest"


def test_a_server_that_keeps_the_state_is_looked_at_more_often() -> None:
    state = {option.name: option.value for option in describe_options(PLAIN, keeps_state=True)}

    assert shown(PLAIN)["heartbeatFrequencyMS"] == ("10000", "default")
    assert state["heartbeatFrequencyMS"] == "2000"


def test_two_addresses_are_shown_one_after_the_other() -> None:
    assert len(describe_connections(PLAIN, PLAIN)) == 1
    assert list(describe_connections(PLAIN, "mongodb://other/")) == ["LibreChat's database", "the state"]


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("mongodb://h/", False),
        ("mongodb://h/?tls=true", True),
        ("mongodb://h/?ssl=true", True),
        ("mongodb+srv://h/", True),
        ("mongodb+srv://h/?tls=false", False),
    ],
)
def test_a_uri_tells_whether_the_connection_is_encrypted(uri: str, *, expected: bool) -> None:
    assert uses_tls(uri) is expected
