"""Settings: where they come from, what wins, and that everything wrong is told at once and without secrets."""

import os
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from tailer.core.policy.policies import ContentChoice
from tailer.core.trace.bounds import Bounds
from tailer.errors import SettingsError
from tailer.logs import LogLevel
from tailer.settings import Settings, SinkChoice, load_settings

PUBLIC_KEY = "pk-lf-0123456789"
SECRET_KEY = "sk-lf-9876543210"
URI = "mongodb://mongodb:27017/LibreChat"


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """A process environment with nothing of ours in it, and an empty working directory."""
    for name in list(os.environ):
        if name.startswith(("TAILER_", "LANGFUSE_", "MONGO_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return monkeypatch


class Surroundings:
    """What `load_settings` reads: the environment, and `.env` in the working directory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
        self._monkeypatch = monkeypatch
        self._dotenv = directory / ".env"

    def set(self, **values: str) -> None:
        for name, value in values.items():
            self._monkeypatch.setenv(name, value)

    def write_dotenv(self, **values: str) -> None:
        self._dotenv.write_text(
            "".join(f"{name}={value}\n" for name, value in values.items()), encoding="utf-8"
        )

    def write_dotenv_bytes(self, content: bytes) -> None:
        self._dotenv.write_bytes(content)


@pytest.fixture
def surroundings(clean_environment: pytest.MonkeyPatch, tmp_path: Path) -> Surroundings:
    return Surroundings(clean_environment, tmp_path)


def refuse(surroundings: Surroundings, **values: str) -> SettingsError:
    """The error for these values, which no secret may be part of."""
    surroundings.set(**{"MONGO_URI": URI, **values})
    with pytest.raises(SettingsError) as raised:
        load_settings()
    assert not [value for value in (PUBLIC_KEY, SECRET_KEY, "hunter2") if value in str(raised.value)]
    return raised.value


def test_the_only_required_setting_is_the_connection_string(surroundings: Surroundings) -> None:
    """Everything else has a default, and those are the documented ones."""
    surroundings.set(MONGO_URI=URI)

    settings = load_settings()

    assert URI == settings.mongo_uri.get_secret_value() == settings.state_uri.get_secret_value()
    assert (settings.mongo_database, settings.state_database) == ("LibreChat", "librechat_tailer")
    assert (
        settings.langfuse_enabled,
        settings.langfuse_public_key,
        settings.langfuse_secret_key,
    ) == (True, None, None)
    assert (
        settings.langfuse_url,
        settings.langfuse_environment,
        settings.langfuse_sample_rate,
    ) == ("https://cloud.langfuse.com", "default", 1.0)
    assert timedelta(milliseconds=250) == settings.langfuse_flush_interval
    assert [timedelta(seconds=seconds) for seconds in (3, 10, 1_800, 900, 86_400)] == [
        settings.settle_time,
        settings.park_after,
        settings.unanswered_after,
        settings.unfinished_after,
        settings.approval_time,
    ]
    assert (settings.http_host, settings.http_port) == ("localhost", 9464)
    assert (SinkChoice.FILE, Path("traces.jsonl")) == (settings.sink, settings.file_path)
    assert (settings.content, settings.tags) == (ContentChoice.FULL, ("librechat",))
    assert (Bounds().history_bytes, Bounds().field_bytes) == (settings.history_bytes, settings.field_bytes)
    assert (
        settings.open_turns,
        settings.batch_traces,
        settings.batch_bytes,
        settings.concurrent_requests,
    ) == (5_000, 128, 1_500_000, 4)
    assert [timedelta(seconds=10), timedelta(seconds=30), timedelta(seconds=4), timedelta(seconds=25)] == [
        settings.request_timeout,
        settings.lookup_time,
        settings.checkpoint_interval,
        settings.shutdown_time,
    ]
    assert timedelta(days=730) == settings.export_record_lifetime
    assert (settings.log_level, settings.warnings) == (LogLevel.INFO, ())


def test_without_any_setting_the_error_says_what_to_give(surroundings: Surroundings) -> None:
    """The one required setting is named, with an example."""
    with pytest.raises(
        SettingsError, match=r"TAILER_MONGO_URI is not set: give LibreChat's own MONGO_URI"
    ) as raised:
        load_settings()

    assert (raised.value.exit_code, raised.value.subject) == (2, "TAILER_MONGO_URI")
    del surroundings


def test_the_environment_wins_over_dotenv(surroundings: Surroundings) -> None:
    """As it does in LibreChat; what only `.env` has is taken from there."""
    surroundings.write_dotenv(MONGO_URI="mongodb://file/db", TAILER_SETTLE_SECONDS="7", TAILER_HTTP_PORT="1")
    surroundings.set(MONGO_URI=URI, TAILER_HTTP_PORT="2")

    settings = load_settings()

    assert (URI, 2, timedelta(seconds=7)) == (
        settings.mongo_uri.get_secret_value(),
        settings.http_port,
        settings.settle_time,
    )


def test_names_of_librechat_in_dotenv_are_none_of_our_business(surroundings: Surroundings) -> None:
    """LibreChat's `.env` has a hundred names that the tailer does not know, and odd lines."""
    surroundings.write_dotenv(
        MONGO_URI=URI, OPENAI_API_KEY="user_provided", LANGFUSE_TIMEOUT="3", PORT="3080"
    )

    assert load_settings().warnings == ()


def test_an_empty_value_counts_as_not_given(surroundings: Surroundings) -> None:
    """Compose writes an empty value for a variable that nobody set."""
    surroundings.write_dotenv(TAILER_HTTP_PORT="5")
    surroundings.set(TAILER_MONGO_URI="", MONGO_URI=URI, TAILER_HTTP_PORT="", LANGFUSE_PUBLIC_KEY=" ")

    settings = load_settings()

    assert (
        settings.mongo_uri.get_secret_value(),
        settings.http_port,
        settings.langfuse_public_key,
    ) == (URI, 5, None)


LANGFUSE_VALUES = [
    ("LANGFUSE_ENABLED", "langfuse_enabled", "true", "false", False),
    ("LANGFUSE_PUBLIC_KEY", "langfuse_public_key", PUBLIC_KEY, "pk-other", "pk-other"),
    ("LANGFUSE_SECRET_KEY", "langfuse_secret_key", SECRET_KEY, "sk-other", SecretStr("sk-other")),
    ("LANGFUSE_HOST", "langfuse_url", "http://a", "http://b/", "http://b"),
    ("LANGFUSE_BASE_URL", "langfuse_url", "http://a", "http://b/", "http://b"),
    ("LANGFUSE_BASEURL", "langfuse_url", "http://a", "http://b/", "http://b"),
    ("LANGFUSE_DEBUG", "langfuse_debug", "0", "1", True),
    ("LANGFUSE_SAMPLE_RATE", "langfuse_sample_rate", "1", "0.25", 0.25),
    ("LANGFUSE_FLUSH_INTERVAL", "langfuse_flush_interval", "1", "500", timedelta(milliseconds=500)),
    ("LANGFUSE_FLUSH_AT_SHUTDOWN", "langfuse_flush_at_shutdown", "yes", "no", False),
    ("LANGFUSE_TRACING_ENVIRONMENT", "langfuse_environment", "one", "two", "two"),
    ("LANGFUSE_RELEASE", "langfuse_release", "1", "2", "2"),
]


@pytest.mark.parametrize(("name", "attribute", "plain", "own", "expected"), LANGFUSE_VALUES)
def test_every_langfuse_name_works_and_its_twin_wins(
    surroundings: Surroundings, name: str, attribute: str, plain: str, own: str, expected: object
) -> None:
    """`TAILER_` before a name overrides it, also from `.env` against the environment."""
    keys = {"LANGFUSE_PUBLIC_KEY": PUBLIC_KEY, "LANGFUSE_SECRET_KEY": SECRET_KEY}
    surroundings.set(**{**keys, "MONGO_URI": URI, name: own})
    alone = getattr(load_settings(), attribute)
    surroundings.set(**{name: plain})
    surroundings.write_dotenv(**{f"TAILER_{name}": own})

    assert expected == alone == getattr(load_settings(), attribute)


def test_the_tailers_own_connection_string_wins(surroundings: Surroundings) -> None:
    """The tailer can log in as another user than LibreChat."""
    surroundings.set(MONGO_URI=URI, TAILER_MONGO_URI="mongodb://tailer:hunter2@other/db")

    assert load_settings().mongo_uri.get_secret_value() == "mongodb://tailer:hunter2@other/db"


def test_both_keys_choose_langfuse_and_an_explicit_sink_wins(surroundings: Surroundings) -> None:
    """With keys traces go to Langfuse, unless a file is asked for."""
    surroundings.set(MONGO_URI=URI, LANGFUSE_PUBLIC_KEY=PUBLIC_KEY, LANGFUSE_SECRET_KEY=SECRET_KEY)

    assert SinkChoice.LANGFUSE is load_settings().sink

    surroundings.set(TAILER_SINK="file")
    assert SinkChoice.FILE is load_settings().sink


def test_debug_sets_the_log_level(surroundings: Surroundings) -> None:
    """LANGFUSE_DEBUG wins over the level, as whoever sets it wants to see more."""
    surroundings.set(MONGO_URI=URI, LANGFUSE_DEBUG="true", TAILER_LOG_LEVEL="error")

    assert LogLevel.DEBUG is load_settings().log_level


@pytest.mark.parametrize(
    ("given", "expected"),
    [("a, b,,a", ("a", "b")), (",", ()), ("x" * 200, ("x" * 200,))],
)
def test_tags_are_separated_by_commas(
    surroundings: Surroundings, given: str, expected: tuple[str, ...]
) -> None:
    """Spaces around them go, each counts once, a lone comma means none."""
    surroundings.set(MONGO_URI=URI, TAILER_TAGS=given)

    assert expected == load_settings().tags


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("LANGFUSE_ENABLED", "perhaps", "'perhaps', which is neither true nor false"),
        ("LANGFUSE_HOST", "https://user:hunter2@host", "has a user or password"),
        ("LANGFUSE_BASEURL", "langfuse.com", "is not an http:// or https:// URL"),
        ("LANGFUSE_SAMPLE_RATE", "1.1", "is 1.1, which is not between 0 and 1"),
        ("LANGFUSE_SAMPLE_RATE", "nan", "is 'nan', which is not a number"),
        ("LANGFUSE_FLUSH_INTERVAL", "-1", "is -1, which is not between 0 and 60000"),
        ("LANGFUSE_TRACING_ENVIRONMENT", "a b", "would be shown as default"),
        ("LANGFUSE_TRACING_ENVIRONMENT", "langfuse-", "would be shown as default"),
        ("LANGFUSE_RELEASE", "x" * 201, "has 201 characters"),
        ("LANGFUSE_PUBLIC_KEY", "abc:hunter2", "has characters that no key of Langfuse has"),
        ("TAILER_LANGFUSE_HEADERS", "hunter2", "is no list of headers"),
        ("TAILER_LANGFUSE_HEADERS", "X-A=hunter2,X-B=", "has no usable value for header number 2"),
        ("TAILER_LANGFUSE_HEADERS", "authorization=hunter2", "which the tailer sets itself"),
        ("TAILER_LANGFUSE_CA_FILE", "/missing.pem", "is '/missing.pem', where there is no file"),
        ("TAILER_LANGFUSE_CERT_FILE", "/missing.pem", "is '/missing.pem', where there is no file"),
        ("TAILER_LANGFUSE_KEY_FILE", "/" + "x" * 300, "cannot be looked at (File name too long)"),
        ("LANGFUSE_SECRET_KEY", "sk-lf-hunter2 x", "has characters that no key of Langfuse has"),
        ("TAILER_MONGO_URI", "mongodb://user:hunter2/x@host/db", "characters that end them early"),
        ("TAILER_MONGO_DATABASE", "a.b", "is no name that MongoDB accepts"),
        ("TAILER_STATE_URI", "postgres://hunter2", "does not begin with mongodb://"),
        ("TAILER_STATE_DATABASE", "admin", "a database of MongoDB itself"),
        ("TAILER_SETTLE_SECONDS", "301", "is 301, which is not between 0 and 300"),
        ("TAILER_SETTLE_SECONDS", "3s", "is '3s', which is not a number"),
        ("TAILER_HTTP_HOST", "http://0.0.0.0", "which is no host name"),
        ("TAILER_HTTP_HOST", "a..b", "is 'a..b', which is no host name"),
        ("TAILER_HTTP_HOST", ".", "is '.', which is no host name"),
        ("TAILER_HTTP_HOST", "x" * 300, "which is no host name"),
        ("TAILER_HTTP_PORT", "65536", "is 65536, which is not between 0 and 65535"),
        ("TAILER_HTTP_PORT", "9464.5", "is '9464.5', which is not a whole number"),
        ("TAILER_SINK", "s3", "is 's3', which is none of langfuse, file"),
        ("TAILER_CONTENT", "some", "is 'some', which is none of full, masked, none"),
        ("TAILER_TAGS", "a," + "x" * 201, "which is longer than 200 characters"),
        ("TAILER_TAGS", "a\tb", "with control characters"),
        ("TAILER_CONCURRENT_REQUESTS", "17", "is 17, which is not between 1 and 16"),
        ("TAILER_FILE_PATH", "a\x1bb", "has control characters"),
    ],
)
def test_a_bad_value_is_named_with_its_place_and_problem(
    surroundings: Surroundings, name: str, value: str, problem: str
) -> None:
    """The name is the one that the operator wrote."""
    error = refuse(surroundings, **{name: value})

    assert error.hint.startswith(f"{name} (environment) ")
    assert problem in error.hint.splitlines()[0]


def test_a_bad_value_in_dotenv_is_said_to_be_there(surroundings: Surroundings) -> None:
    """An operator looks in the right place."""
    surroundings.write_dotenv(TAILER_HTTP_PORT="many")

    error = refuse(surroundings)

    assert (
        error.hint
        == "TAILER_HTTP_PORT (.env) is 'many', which is not a whole number: give a whole number from 0 to 65535"
    )


def test_a_key_pasted_into_another_setting_is_not_repeated(surroundings: Surroundings) -> None:
    """What is quoted is redacted before."""
    assert "sk-lf-***" in refuse(surroundings, TAILER_SINK=SECRET_KEY).hint


def test_everything_wrong_is_told_at_once(surroundings: Surroundings) -> None:
    """One error names all, so that one restart is enough."""
    error = refuse(
        surroundings,
        TAILER_MONGO_URI="mongo://hunter2",
        LANGFUSE_SECRET_KEY=SECRET_KEY,
        TAILER_SINK="langfuse",
        TAILER_HTTP_PORT="x",
        TAILER_PARK_SECOND="5",
    )

    names = [
        "LANGFUSE_SECRET_KEY",
        "TAILER_MONGO_URI",
        "TAILER_SINK",
        "TAILER_HTTP_PORT",
        "TAILER_PARK_SECOND",
    ]
    assert ", ".join(names) == error.subject
    assert names == [line.split()[0] for line in error.hint.splitlines()]


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"LANGFUSE_PUBLIC_KEY": PUBLIC_KEY}, "LANGFUSE_SECRET_KEY is not set, while LANGFUSE_PUBLIC_KEY is"),
        (
            {"LANGFUSE_SECRET_KEY": SECRET_KEY},
            "LANGFUSE_SECRET_KEY (environment) is set without LANGFUSE_PUBLIC_KEY",
        ),
        ({"TAILER_SINK": "langfuse"}, "TAILER_SINK (environment) is langfuse, but the keys are not both set"),
    ],
)
def test_half_a_pair_of_keys_is_an_error(
    surroundings: Surroundings, values: dict[str, str], problem: str
) -> None:
    """One key is no login, and Langfuse without keys is none either."""
    assert refuse(surroundings, **values).hint.startswith(problem)


def test_swapped_keys_are_recognised(surroundings: Surroundings) -> None:
    """Both say what the other one is."""
    error = refuse(surroundings, LANGFUSE_PUBLIC_KEY=SECRET_KEY, LANGFUSE_SECRET_KEY=PUBLIC_KEY)

    first, second = error.hint.splitlines()
    assert first.startswith("LANGFUSE_PUBLIC_KEY (environment) holds a secret key: the keys look swapped")
    assert second.startswith("LANGFUSE_SECRET_KEY (environment) holds a public key: the keys look swapped")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"MONGO_URI": "mongodb://h/path", "TAILER_MONGO_DATABASE": "other"}, "path"),
        ({"MONGO_URI": "mongodb://h", "TAILER_MONGO_DATABASE": "other"}, "other"),
        ({"MONGO_URI": "mongodb://h/?replicaSet=rs0"}, "LibreChat"),
    ],
)
def test_the_database_is_the_path_then_the_setting_then_librechat(
    surroundings: Surroundings, values: dict[str, str], expected: str
) -> None:
    """What is not used, and what is assumed, is said in a warning."""
    surroundings.set(**values)

    settings = load_settings()

    assert expected == settings.mongo_database
    assert (expected != "other") == bool(settings.warnings)


def test_a_database_of_mongodb_itself_cannot_be_tailed(surroundings: Surroundings) -> None:
    """An operator who put `admin` there for the login is told where that goes."""
    error = refuse(surroundings, MONGO_URI="mongodb://u:hunter2@h/admin")

    assert "resolves to admin" in error.hint
    assert "authSource=admin" in error.hint


@pytest.mark.parametrize(
    ("state_uri", "state_database", "is_refused"),
    [
        (None, "LibreChat", True),
        (None, "librechat", True),
        ("mongodb://MONGODB", "LibreChat", True),
        ("mongodb://elsewhere", "LibreChat", False),
        (None, "other", False),
    ],
)
def test_the_state_is_never_kept_in_librechats_database(
    surroundings: Surroundings, state_uri: str | None, state_database: str, *, is_refused: bool
) -> None:
    """The tailer only reads there; on another server the name is free."""
    values = {"TAILER_STATE_DATABASE": state_database}
    if state_uri is not None:
        values["TAILER_STATE_URI"] = state_uri
    if is_refused:
        assert "is LibreChat's own database" in refuse(surroundings, **values).hint
    else:
        surroundings.set(MONGO_URI=URI, **values)
        assert state_database == load_settings().state_database


def test_the_path_of_the_state_uri_does_not_name_the_database(surroundings: Surroundings) -> None:
    """It is where the user is kept; whoever means the database gets a warning."""
    surroundings.set(MONGO_URI=URI, TAILER_STATE_URI="mongodb://h/elsewhere")

    (warning,) = load_settings().warnings

    assert "TAILER_STATE_DATABASE" in warning


def test_a_mistyped_name_of_ours_is_an_error_with_the_closest_name(surroundings: Surroundings) -> None:
    """A setting that is silently not used is worse than no start."""
    error = refuse(surroundings, TAILER_SETTLE_SECOND="5")

    assert error.hint.startswith(
        "TAILER_SETTLE_SECOND (environment) is not known; the closest one is TAILER_SETTLE_SECONDS: correct the name"
    )


def test_a_mistyped_name_of_langfuse_is_a_warning(surroundings: Surroundings) -> None:
    """It may belong to somebody else who reads the same environment."""
    surroundings.set(MONGO_URI=URI, LANGFUSE_HOSTS="x", LANGFUSE_INIT_ORG_ID="y")

    assert load_settings().warnings == (
        "LANGFUSE_HOSTS is no setting of the tailer and is ignored; the closest one is LANGFUSE_HOST",
        "LANGFUSE_INIT_ORG_ID is no setting of the tailer and is ignored",
    )


def test_a_mistyped_name_of_ours_in_dotenv_is_a_warning(surroundings: Surroundings) -> None:
    """It is nobody else's, but the file is shared."""
    surroundings.write_dotenv(MONGO_URI=URI, TAILER_TAG="x")

    assert load_settings().warnings == (
        "TAILER_TAG in .env is no setting of the tailer and is ignored; the closest one is TAILER_TAGS",
    )


def test_addresses_that_kubernetes_adds_are_no_settings(surroundings: Surroundings) -> None:
    """A Service called tailer or langfuse puts these names into every container of its namespace."""
    surroundings.set(
        MONGO_URI=URI,
        TAILER_SERVICE_HOST="10.0.0.1",
        TAILER_SERVICE_PORT="9464",
        TAILER_SERVICE_PORT_METRICS="9464",
        TAILER_PORT="tcp://10.0.0.1:9464",
        TAILER_PORT_9464_TCP="tcp://10.0.0.1:9464",
        TAILER_PORT_9464_TCP_ADDR="10.0.0.1",
        LANGFUSE_WEB_PORT="tcp://10.0.0.2:3000",
    )

    assert load_settings().warnings == ()


def test_a_port_that_is_no_service_link_is_a_mistyped_name(surroundings: Surroundings) -> None:
    """TAILER_PORT with a number is what somebody writes who means TAILER_HTTP_PORT."""
    assert "TAILER_HTTP_PORT" in refuse(surroundings, TAILER_PORT="9464").hint


def test_two_names_for_one_setting_that_differ_are_a_warning(surroundings: Surroundings) -> None:
    """The one that counts is said; equal ones are no contradiction."""
    surroundings.set(MONGO_URI=URI, LANGFUSE_HOST="http://a", LANGFUSE_BASE_URL="http://b")

    assert load_settings().warnings == ("LANGFUSE_HOST and LANGFUSE_BASE_URL differ: LANGFUSE_HOST is used",)

    surroundings.set(LANGFUSE_BASE_URL="http://a")
    assert load_settings().warnings == ()


def test_a_dotenv_that_is_no_text_is_an_error_with_a_remedy(surroundings: Surroundings) -> None:
    """Instead of a traceback."""
    surroundings.write_dotenv_bytes(b"MONGO_URI=\xff\xfe")

    assert "readable UTF-8 file" in refuse(surroundings).hint


def test_a_dotenv_that_is_no_file_is_an_error_and_not_an_absent_one(
    surroundings: Surroundings, tmp_path: Path
) -> None:
    """Docker makes a directory of a file that is to be mounted and is missing."""
    surroundings.set(MONGO_URI=URI)
    place = tmp_path / ".env"
    place.mkdir()
    assert "(it is a directory)" in refuse(surroundings).hint

    place.rmdir()
    place.symlink_to("missing")
    assert "(it is a link to nothing)" in refuse(surroundings).hint

    place.unlink()
    place.symlink_to(os.devnull)
    assert load_settings().warnings == ()


def test_values_that_code_passes_win_and_are_checked(surroundings: Surroundings) -> None:
    """The demo brings its own server; a limit holds for it as well."""
    surroundings.set(MONGO_URI=URI, TAILER_HTTP_PORT="1", TAILER_SETTLE_SECONDS="9")

    settings = load_settings(mongo_uri="mongodb://own/chat", http_port=0, settle_time=timedelta(seconds=0.5))

    assert ("chat", 0, timedelta(seconds=0.5)) == (
        settings.mongo_database,
        settings.http_port,
        settings.settle_time,
    )
    with pytest.raises(SettingsError, match="TAILER_SETTLE_SECONDS is 301, which"):
        load_settings(settle_time=timedelta(seconds=301))
    with pytest.raises(SettingsError, match="htp_port"):
        load_settings(htp_port=0)


def test_a_validation_error_of_the_class_quotes_no_value(surroundings: Surroundings) -> None:
    """Also whoever builds the settings without `load_settings` shows no secret."""
    surroundings.set(MONGO_URI="postgres://hunter2")

    with pytest.raises(ValidationError) as raised:
        Settings()  # type: ignore[call-arg]

    assert "hunter2" not in str(raised.value)


def test_settings_cannot_be_changed_and_do_not_show_secrets(surroundings: Surroundings) -> None:
    """Neither their representation nor their dump holds a key or a connection string."""
    surroundings.set(
        MONGO_URI="mongodb://u:hunter2@h/db", LANGFUSE_PUBLIC_KEY=PUBLIC_KEY, LANGFUSE_SECRET_KEY=SECRET_KEY
    )

    settings = load_settings()

    with pytest.raises(ValidationError, match="frozen"):
        settings.http_port = 1
    for shown in (repr(settings), str(settings), repr(settings.model_dump(exclude={"langfuse_public_key"}))):
        assert not [secret for secret in (PUBLIC_KEY, SECRET_KEY, "hunter2") if secret in shown]
