"""Connection strings and base URLs: which are usable, and that none shows a credential."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailer.settings.addresses import (
    MongoAddress,
    is_database_name,
    parse_langfuse_url,
    parse_mongo_uri,
)
from tailer.settings.kinds import UnfitValueError


@pytest.mark.parametrize(
    ("uri", "hosts", "database"),
    [
        ("mongodb://mongodb:27017/LibreChat", ("mongodb:27017",), "LibreChat"),
        ("mongodb://Mongo", ("mongo:27017",), None),
        ("mongodb://a:1,b:2,c/chat?replicaSet=rs0", ("a:1", "b:2", "c:27017"), "chat"),
        ("mongodb://a?replicaSet=rs0", ("a:27017",), None),
        ("mongodb://a/?replicaSet=rs0", ("a:27017",), None),
        ("mongodb://u:p%40@[::1]:27018/Libre%2DChat", ("[::1]:27018",), "Libre-Chat"),
        ("mongodb+srv://u:p@cluster0.example.net/chat", ("cluster0.example.net",), "chat"),
        ("mongodb://u:p@h:10255/?ssl=true&appName=@u@", ("h:10255",), None),
    ],
)
def test_usable_connection_strings_are_read(uri: str, hosts: tuple[str, ...], database: str | None) -> None:
    """Hosts get their port and lower case; the database is the path, percent-decoded."""
    address = parse_mongo_uri(uri)

    assert (hosts, database) == (address.hosts, address.database)


@pytest.mark.parametrize(
    ("uri", "problem"),
    [
        ("", "does not begin with"),
        ("localhost:27017", "does not begin with"),
        ('"mongodb://a/b"', "does not begin with"),
        ("https://a/b", "does not begin with"),
        ("mongodb://", "no readable host"),
        ("mongodb://a,,b", "no readable host"),
        ("mongodb://a:port", "no readable host"),
        ("mongodb://a:0", "port"),
        ("mongodb://a:65536", "port"),
        ("mongodb://u:s/cret@a/b", "characters that end them early"),
        ("mongodb://u:s@cret@a/b", "characters that end them early"),
        ("mongodb://u:s:cret@a/b", "characters that end them early"),
        ("mongodb://u:s?cret@a/b", "characters that end them early"),
        ("mongodb://u:1234?s&cret@a", "characters that end them early"),
        ("mongodb://a/b?replicaSet=rs0&cret", "has an option without ="),
        ("mongodb+srv://a,b", "several hosts"),
        ("mongodb+srv://a:27017", "gives a port"),
        ("mongodb://a/b/c", "no name of a database"),
        ("mongodb://a/b c", "no name of a database"),
    ],
)
def test_unusable_connection_strings_are_refused_with_the_reason(uri: str, problem: str) -> None:
    """The reason names the fault and nothing of the connection string."""
    with pytest.raises(UnfitValueError) as raised:
        parse_mongo_uri(uri)

    assert problem in raised.value.problem
    assert "cret" not in f"{raised.value.problem}{raised.value.remedy}"


@given(st.text())
def test_any_text_is_an_address_or_is_refused(text: str) -> None:
    """No other error than the one for operators, whatever is given."""
    try:
        parsed: MongoAddress | None = parse_mongo_uri(f"mongodb://{text}")
    except UnfitValueError:
        parsed = None

    assert parsed is None or parsed.hosts


@pytest.mark.parametrize("separator", ["&", ";"])
@given(st.text(alphabet=st.characters(codec="ascii", categories=["L", "N"]), min_size=8))
def test_a_password_is_never_shown(separator: str, password: str) -> None:
    """Neither in the user part nor in an option that holds one, whichever separator of the driver stands before it."""
    options = separator.join(("w=1", f"tlsCertificateKeyFilePassword=Z{password}Z", "appName=x"))
    address = parse_mongo_uri(f"mongodb://user:Z{password}Z@host/db?{options}")

    assert f"Z{password}Z" not in address.without_credentials()


def test_what_is_not_secret_of_an_address_is_shown() -> None:
    """An operator sees where the tailer connects to, and as whom."""
    address = parse_mongo_uri("mongodb://user:word@a,b:2/chat?authMechanismProperties=T:x&replicaSet=rs0")

    assert (
        address.without_credentials()
        == "mongodb://user:****@a:27017,b:2/chat?authMechanismProperties=****&replicaSet=rs0"
    )


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("mongodb://a", "mongodb://A:27017", True),
        ("mongodb://a,b", "mongodb://c,b", True),
        ("mongodb://a", "mongodb://a:27018", False),
        ("mongodb+srv://a.net", "mongodb+srv://u:p@A.net", True),
    ],
)
def test_a_common_host_and_port_is_the_same_server(one: str, other: str, *, expected: bool) -> None:
    """Case, credentials and the default port make no difference."""
    assert expected is parse_mongo_uri(one).shares_server_with(parse_mongo_uri(other))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("LibreChat", True),
        ("a" * 63, True),
        ("ä" * 32, False),
        ("", False),
        ("a.b", False),
        ("a$", False),
        ("a b", False),
    ],
)
def test_names_of_databases_follow_mongodbs_rules(name: str, *, expected: bool) -> None:
    """At most 63 bytes, without the signs that MongoDB forbids on some platform."""
    assert expected is is_database_name(name)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://cloud.langfuse.com/", "https://cloud.langfuse.com"),
        ("http://langfuse-web:3000", "http://langfuse-web:3000"),
        ("https://example.com/langfuse//", "https://example.com/langfuse"),
    ],
)
def test_base_urls_lose_the_slash_at_their_end(url: str, expected: str) -> None:
    """Paths are appended later; a base path stays."""
    assert expected == parse_langfuse_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "cloud.langfuse.com",
        "ftp://a",
        "https://",
        "https://a:x",
        "https://a:0",
        "https://[::1",
        "https://ä.com",
        "https://a b",
        "https://pk-lf-secret@a",
        "https://pk:sk-lf-secret@a",
        "https://a/api/public/otel",
        "https://a?x=secret",
        "https://a#x",
    ],
)
def test_unusable_base_urls_are_refused_without_quoting_them(url: str) -> None:
    """A URL with credentials, a query or an API path is no base URL."""
    with pytest.raises(UnfitValueError) as raised:
        parse_langfuse_url(url)

    assert "secret" not in f"{raised.value.problem}{raised.value.remedy}".replace("LANGFUSE_SECRET_KEY", "")
