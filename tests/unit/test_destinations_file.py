"""The file of destinations: what it may say, what the environment adds, and that each mistake is one clear line."""

import os
import re
from datetime import timedelta
from pathlib import Path
from textwrap import dedent

import pytest

from tailer.core.policy.policies import ContentChoice, Fact, parse_content_rule
from tailer.core.policy.routes import Condition, Route, Routes
from tailer.core.policy.users import UserIdChoice
from tailer.daemon.options import needs_groups, needs_users
from tailer.errors import SettingsError
from tailer.operations.doctor.findings import Verdict
from tailer.operations.doctor.privileges import Rights, judge_reading
from tailer.settings import Settings, load_settings
from tailer.settings.destinations import (
    Compression,
    FileDestination,
    LangfuseDestination,
    MetricsWay,
    OtlpDestination,
    Way,
    address_of,
)
from tailer.settings.destinations.tables import TABLES

SECRETS = ("sk-lf-hidden1", "sk-lf-hidden2", "gateway-hidden", "hash-hidden-hash-hidden")
TWO_KEYS = 'public_key = "pk-lf-a"\nsecret_key = "sk-lf-hidden1"\n'
KEYS = {"LANGFUSE_PUBLIC_KEY": "pk-lf-env", "LANGFUSE_SECRET_KEY": "sk-lf-hidden2"}


class Place:
    """A working directory with a file of destinations, and an environment with nothing else of ours."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
        self.environment = monkeypatch
        self.file = directory / "destinations.toml"

    def load(self, text: str, **values: str) -> Settings:
        self.file.write_text(dedent(text), encoding="utf-8")
        for name, value in {"TAILER_DESTINATIONS": str(self.file), **values}.items():
            self.environment.setenv(name, value)
        return load_settings()

    def refuse(self, text: str, **values: str) -> list[str]:
        """The lines of the error, which names the file and shows no secret."""
        with pytest.raises(SettingsError) as raised:
            self.load(text, **values)
        assert raised.value.subject == str(self.file)
        assert not [secret for secret in SECRETS if secret in str(raised.value)]
        return raised.value.hint.splitlines()


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Place:
    for name in list(os.environ):
        if name.startswith(("TAILER_", "LANGFUSE_", "MONGO_", "OTEL_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MONGO_URI", "mongodb://mongodb:27017/LibreChat")
    return Place(monkeypatch, tmp_path)


def test_the_environment_alone_means_one_langfuse(place: Place) -> None:
    for name, value in {**KEYS, "LANGFUSE_SAMPLE_RATE": "0.5", "TAILER_CONTENT": "masked"}.items():
        place.environment.setenv(name, value)

    settings = load_settings()

    (only,) = settings.destinations
    assert isinstance(only, LangfuseDestination)
    assert (only.name, only.host, only.public_key) == ("default", "https://cloud.langfuse.com", "pk-lf-env")
    assert (only.choices.sample_rate, only.choices.content) == (0.5, ContentChoice.MASKED)
    assert settings.routes == Routes((), ("default",))


def test_the_environment_without_keys_means_one_file(place: Place) -> None:
    del place

    settings = load_settings(file_path=Path("/traces/x.jsonl"))

    (only,) = settings.destinations
    assert isinstance(only, FileDestination)
    assert (only.name, only.path, address_of(only)) == ("default", Path("/traces/x.jsonl"), "/traces/x.jsonl")


def test_a_file_names_destinations_of_every_kind_in_its_order(place: Place) -> None:
    settings = place.load(
        f"""
        [destinations.team-a]
        kind = "langfuse"
        host = "https://a.example.com/"
        {TWO_KEYS.replace(chr(10), chr(10) + "        ")}
        headers = {{ X-Gateway = "gateway-hidden" }}
        content = "none"
        user_id = "username"
        sample_rate = 1
        environment = "Production"
        release = "1.2"
        [destinations.collector]
        kind = "otlp"
        endpoint = "http://collector:4318/"
        headers = {{ Authorization = "Basic gateway-hidden" }}
        protocol = "http/protobuf"
        compression = "none"
        timeout_seconds = 2.5
        metrics = true
        [destinations.lines]
        kind = "file"
        path = "lines.jsonl"
        """
    )

    team, collector, lines = settings.destinations
    assert isinstance(team, LangfuseDestination)
    assert isinstance(collector, OtlpDestination)
    assert isinstance(lines, FileDestination)
    assert [each.name for each in settings.destinations] == ["team-a", "collector", "lines"]
    assert (team.host, team.public_key, team.secret_key.get_secret_value()) == (
        "https://a.example.com",
        "pk-lf-a",
        "sk-lf-hidden1",
    )
    assert team.way.headers == {"X-Gateway": "gateway-hidden"}
    chosen = team.choices
    assert (chosen.content, chosen.user_id, chosen.sample_rate) == ("none", UserIdChoice.USERNAME, 1.0)
    assert (chosen.environment, chosen.release) == ("production", "1.2")
    assert collector.traces_url == "http://collector:4318/v1/traces"
    assert collector.metrics == MetricsWay(
        "http://collector:4318/v1/metrics",
        Compression.NONE,
        timedelta(seconds=2.5),
        collector.way,
        timedelta(minutes=1),
    )
    assert (collector.compression, collector.timeout) == (Compression.NONE, timedelta(seconds=2.5))
    assert collector.way.headers == {"Authorization": "Basic gateway-hidden"}
    assert lines.path == Path("lines.jsonl")
    assert settings.routes == Routes((), ("team-a", "collector", "lines"))
    assert not [secret for secret in SECRETS if secret in repr(settings.destinations)]


def test_what_a_destination_does_not_state_is_as_the_environment_says(place: Place) -> None:
    settings = place.load(
        """
        [destinations.default]
        kind = "langfuse"
        [destinations.lines]
        kind = "file"
        """,
        **KEYS,
        LANGFUSE_HOST="https://langfuse.example.com",
        TAILER_LANGFUSE_HEADERS="X-Gateway=gateway-hidden",
        TAILER_FILE_PATH="/traces/lines.jsonl",
        TAILER_CONTENT="masked",
        TAILER_CONTENT_RULES="role=ADMIN:none",
        TAILER_USER_ID="hash",
        TAILER_USER_ID_SECRET="hash-hidden-hash-hidden",
        LANGFUSE_SAMPLE_RATE="0.25",
        LANGFUSE_TRACING_ENVIRONMENT="staging",
        LANGFUSE_RELEASE="0.8.5",
    )

    langfuse, lines = settings.destinations
    assert isinstance(langfuse, LangfuseDestination)
    assert isinstance(lines, FileDestination)
    assert (langfuse.host, langfuse.public_key) == ("https://langfuse.example.com", "pk-lf-env")
    assert langfuse.way.headers == {"X-Gateway": "gateway-hidden"}
    assert lines.path == Path("/traces/lines.jsonl")
    for chosen in (langfuse.choices, lines.choices):
        assert chosen.user_id_secret is not None
        assert (chosen.content, chosen.user_id, chosen.sample_rate) == ("masked", "hash", 0.25)
        assert (chosen.environment, chosen.release) == ("staging", "0.8.5")
        assert chosen.content_rules == (parse_content_rule("role=ADMIN:none"),)


def test_keys_and_headers_of_the_environment_go_to_its_own_host_only(place: Place) -> None:
    """Another host is another company, perhaps: it is shown neither."""
    text = f"""
        [destinations.other]
        kind = "langfuse"
        host = "https://other.example.com"
        {TWO_KEYS.replace(chr(10), chr(10) + "        ")}
        """
    settings = place.load(text, **KEYS, TAILER_LANGFUSE_HEADERS="X-Gateway=gateway-hidden")

    (other,) = settings.destinations
    assert isinstance(other, LangfuseDestination)
    assert other.way.headers == {}
    assert place.refuse('[destinations.other]\nkind = "langfuse"\nhost = "https://other.example.com"') == [
        (
            "[destinations.other] public_key is missing, and the keys of the environment are for LANGFUSE_HOST only: "
            "give public_key, public_key_env or public_key_file"
        ),
        (
            "[destinations.other] secret_key is missing, and the keys of the environment are for LANGFUSE_HOST only: "
            "give secret_key, secret_key_env or secret_key_file"
        ),
    ]


@pytest.mark.parametrize("name", ["TEAM_A_SECRET", "TAILER_TEAM_A_SECRET", "LANGFUSE_TEAM_A_SECRET"])
@pytest.mark.parametrize("in_dotenv", [False, True])
def test_a_key_may_be_in_a_variable_of_any_name_or_in_a_file(
    place: Place, name: str, *, in_dotenv: bool
) -> None:
    Path("public").write_text("pk-lf-a\n", encoding="utf-8")
    if in_dotenv:
        Path(".env").write_text(f"{name}=sk-lf-hidden1\n", encoding="utf-8")
    else:
        place.environment.setenv(name, "sk-lf-hidden1")

    settings = place.load(
        f"""
        [destinations.a]
        kind = "langfuse"
        public_key_file = "public"
        secret_key_env = "{name}"
        """
    )

    (only,) = settings.destinations
    assert isinstance(only, LangfuseDestination)
    assert (only.public_key, only.secret_key.get_secret_value()) == ("pk-lf-a", "sk-lf-hidden1")
    assert not [warning for warning in settings.warnings if name in warning]


def test_an_otlp_server_takes_opentelemetrys_own_names(place: Place) -> None:
    settings = place.load(
        '[destinations.otel]\nkind = "otlp"\nmetrics = true\n',
        OTEL_EXPORTER_OTLP_ENDPOINT="https://otel.example.com",
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT="https://traces.example.com/in",
        OTEL_EXPORTER_OTLP_HEADERS="Authorization=Basic%20gateway-hidden,X-Org=a%2Cb",
        OTEL_EXPORTER_OTLP_TIMEOUT="3000",
        OTEL_EXPORTER_OTLP_COMPRESSION="gzip",
    )

    (only,) = settings.destinations
    assert isinstance(only, OtlpDestination)
    assert only.metrics is not None
    assert (only.traces_url, only.metrics.url) == (
        "https://traces.example.com/in",
        "https://otel.example.com/v1/metrics",
    )
    assert only.metrics.way == only.way
    assert only.way.headers == {"Authorization": "Basic gateway-hidden", "X-Org": "a,b"}
    assert (only.timeout, only.compression) == (timedelta(seconds=3), Compression.GZIP)


def test_the_names_of_one_signal_win_and_what_is_for_traces_is_not_shown_to_the_server_of_metrics(
    place: Place, tmp_path: Path
) -> None:
    authority = tmp_path / "metrics-ca.pem"
    authority.write_text("PEM")
    settings = place.load(
        '[destinations.otel]\nkind = "otlp"\nmetrics = true\n',
        OTEL_EXPORTER_OTLP_ENDPOINT="https://otel.example.com",
        OTEL_EXPORTER_OTLP_TRACES_HEADERS="Authorization=gateway-hidden",
        OTEL_EXPORTER_OTLP_METRICS_ENDPOINT="https://metrics.example.com/in",
        OTEL_EXPORTER_OTLP_METRICS_HEADERS="X-Key=other-hidden",
        OTEL_EXPORTER_OTLP_METRICS_TIMEOUT="1000",
        OTEL_EXPORTER_OTLP_METRICS_COMPRESSION="none",
        OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE=str(authority),
        OTEL_METRIC_EXPORT_INTERVAL="5000",
    )

    (only,) = settings.destinations
    assert isinstance(only, OtlpDestination)
    assert only.way.headers == {"Authorization": "gateway-hidden"}
    assert only.metrics == MetricsWay(
        "https://metrics.example.com/in",
        Compression.NONE,
        timedelta(seconds=1),
        Way({"X-Key": "other-hidden"}, ca_file=authority),
        timedelta(seconds=5),
    )
    assert "hidden" not in repr(only)


def test_headers_of_the_variables_do_not_go_to_an_endpoint_for_metrics_of_the_file(place: Place) -> None:
    """Nor do certificates: they belong to the server of the variables."""
    settings = place.load(
        '[destinations.otel]\nkind = "otlp"\nmetrics = true\nmetrics_endpoint = "https://metrics.example.com/in"\n',
        OTEL_EXPORTER_OTLP_ENDPOINT="https://otel.example.com",
        OTEL_EXPORTER_OTLP_HEADERS="Authorization=gateway-hidden",
    )

    (only,) = settings.destinations
    assert isinstance(only, OtlpDestination)
    assert only.metrics is not None
    assert (only.way.headers, only.metrics.way) == ({"Authorization": "gateway-hidden"}, Way())


def test_sums_since_the_start_cannot_be_asked_for(place: Place) -> None:
    with pytest.raises(
        SettingsError, match="OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE is 'cumulative'"
    ):
        place.load(
            '[destinations.otel]\nkind = "otlp"\nmetrics = true\nendpoint = "http://collector:4318"\n',
            OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE="cumulative",
        )


def test_headers_of_opentelemetrys_names_do_not_go_to_an_endpoint_of_the_file(place: Place) -> None:
    settings = place.load(
        '[destinations.otel]\nkind = "otlp"\nendpoint = "http://collector:4318"\n',
        OTEL_EXPORTER_OTLP_ENDPOINT="https://otel.example.com",
        OTEL_EXPORTER_OTLP_HEADERS="Authorization=Basic%20gateway-hidden",
    )

    (only,) = settings.destinations
    assert isinstance(only, OtlpDestination)
    assert (only.traces_url, only.way.headers) == ("http://collector:4318/v1/traces", {})


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("full", ["endpoint=a:full", "role=ADMIN:none", "model=b:masked"]),
        ("masked", ["endpoint=a:masked", "role=ADMIN:none", "model=b:masked"]),
        ("none", ["endpoint=a:none", "role=ADMIN:none", "model=b:none"]),
    ],
)
def test_no_rule_of_the_environment_shows_a_destination_more_than_it_states(
    place: Place, content: str, expected: list[str]
) -> None:
    settings = place.load(
        f'[destinations.lines]\nkind = "file"\ncontent = "{content}"\n',
        TAILER_CONTENT_RULES="endpoint=a:full,role=ADMIN:none,model=b:masked",
    )

    assert settings.destinations[0].choices.content_rules == tuple(map(parse_content_rule, expected))


def test_own_content_rules_of_a_destination_take_the_place_of_the_environments(place: Place) -> None:
    settings = place.load(
        '[destinations.lines]\nkind = "file"\ncontent = "none"\ncontent_rules = ["tenant=a:full"]\n',
        TAILER_CONTENT_RULES="role=ADMIN:none",
    )

    assert settings.destinations[0].choices.content_rules == (parse_content_rule("tenant=a:full"),)


def test_routes_are_read_in_order(place: Place) -> None:
    settings = place.load(
        """
        otherwise = ["b"]
        [destinations.a]
        kind = "file"
        path = "a"
        [destinations.b]
        kind = "file"
        path = "b"
        [[routes]]
        when = { tenant = ["a", "a-*"], endpoint = ["openAI"] }
        to = ["a", "b"]
        [[routes]]
        when = { tag = ["private"] }
        to = []
        """
    )

    assert settings.routes == Routes(
        (
            Route((Condition(Fact.TENANT, ("a", "a-*")), Condition(Fact.ENDPOINT, ("openAI",))), ("a", "b")),
            Route((Condition(Fact.TAG, ("private",)),), ()),
        ),
        ("b",),
    )


@pytest.mark.parametrize(
    ("lines", "users", "groups"),
    [
        ('content = "full"', False, False),
        ('user_id = "email"', True, False),
        ('content_rules = ["role=ADMIN:none"]', True, False),
        ('content_rules = ["group=Board:none"]', True, True),
        ('[[routes]]\nwhen = { role = ["ADMIN"] }\nto = []', True, False),
        ('[[routes]]\nwhen = { group = ["Board"] }\nto = []', True, True),
    ],
)
def test_users_and_groups_are_read_where_a_route_or_a_destination_asks_for_them(
    place: Place, lines: str, *, users: bool, groups: bool
) -> None:
    head = 'otherwise = ["a"]\n[destinations.z]\nkind = "file"\npath = "z"\n[destinations.a]\nkind = "file"\n'

    settings = place.load(head + lines)

    assert (needs_users(settings), needs_groups(settings)) == (users, groups)


DOCUMENT = Path(__file__).parents[2] / "docs" / "destinations.md"
EXAMPLES = re.findall(r"```toml\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
NAMED = {
    "TEAM_A_SECRET_KEY": "sk-lf-a",
    "COLLECTOR_HEADERS": "api-key=x",
    "PLATFORM_HASH_KEY": "hash-hidden-hash-hidden",
    "RESEARCH_PUBLIC_KEY": "pk-lf-r",
    "RESEARCH_SECRET_KEY": "sk-lf-r",
}


@pytest.mark.parametrize(
    ("number", "names"),
    [(0, ("team-a", "team-b")), (1, ("default", "collector")), (2, ("platform", "research"))],
)
def test_the_examples_of_the_document_can_be_used_as_they_stand(
    place: Place, number: int, names: tuple[str, ...]
) -> None:
    Path("team-b").write_text("sk-lf-b\n", encoding="utf-8")

    text = EXAMPLES[number].replace("/run/secrets/", "")

    settings = place.load(text, **NAMED, **(KEYS if number else {}))

    assert len(EXAMPLES) == 3
    assert tuple(destination.name for destination in settings.destinations) == names
    assert not settings.warnings


def test_the_document_names_every_key_and_every_fact() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    keys = {key for table in TABLES.values() for key in table.model_fields}

    assert [key for key in keys if f"`{key}`" not in text and not key.endswith(("_env", "_file"))] == ["kind"]
    assert [fact for fact in Fact if f"`{fact}`" not in text] == []


def test_the_doctor_asks_for_the_grant_that_a_route_needs(place: Place) -> None:
    """Without it turns go nowhere because of such a route."""
    settings = place.load(f'otherwise = ["a"]\n{FILE}[[routes]]\nwhen = {{ group = ["Board"] }}\nto = []\n')
    reads = [
        {"resource": {"db": "LibreChat", "collection": name}, "actions": ["find", "changeStream"]}
        for name in ("messages", "conversations", "transactions", "agents")
    ]

    found = judge_reading(
        Rights("reader", reads),
        "LibreChat",
        with_users=needs_users(settings),
        with_groups=needs_groups(settings),
    )

    missing = [finding for finding in found if finding.verdict is Verdict.WARN]
    assert [finding.check for finding in missing] == ["privilege on users", "privilege on groups"]
    assert all("choose the strictest" in finding.seen for finding in missing)


FILE = '[destinations.a]\nkind = "file"\n'


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "the file names no destination: add a table such as [destinations.default]"),
        (
            f"colour = 1\n{FILE}",
            "the file 'colour' is not known: remove it; the keys are destinations, otherwise, routes",
        ),
        (
            FILE.replace("[destinations.a]", "[destinations.Team_A]"),
            "[destinations.'Team_A'] has a name that cannot be used: give 1 to 31 of a-z, 0-9 and -, not beginning with -",
        ),
        ("[destinations.a]\n", "[destinations.a] kind is missing: give one of 'langfuse', 'otlp', 'file'"),
        (
            '[destinations.a]\nkind = "s3"\n',
            "[destinations.a] kind is 's3': give one of 'langfuse', 'otlp', 'file'",
        ),
        (
            f"{FILE}contnet = 'none'\n",
            (
                "[destinations.a] 'contnet' is not known; the closest one is content: remove it; the keys are content, "
                "content_rules, environment, kind, path, release, sample_rate, user_id, user_id_secret, user_id_secret_env, "
                "user_id_secret_file"
            ),
        ),
        (
            f'{FILE}content = "some"\n',
            "[destinations.a] content is 'some', which is none of full, masked, none: give one of full, masked, none",
        ),
        (
            f'{FILE}sample_rate = "1"\n',
            "[destinations.a] sample_rate is of another type: give a number from 0 to 1",
        ),
        (
            f"{FILE}sample_rate = true\n",
            "[destinations.a] sample_rate is of another type: give a number from 0 to 1",
        ),
        (
            f"{FILE}sample_rate = 2\n",
            "[destinations.a] sample_rate is 2, which is not between 0 and 1: give a number from 0 to 1",
        ),
        (
            f'{FILE}user_id = "hash"\n',
            (
                "[destinations.a] user_id_secret is missing, while user_id is hash: give a random text of at least 16 "
                "characters"
            ),
        ),
        (
            f'{FILE}user_id_secret = "short"\n',
            (
                "[destinations.a] user_id_secret has fewer than 16 characters: make one with `openssl rand -hex 32` or "
                "`python3 -c 'import secrets; print(secrets.token_hex(32))'` and keep it, because with another one every "
                "user becomes a new one"
            ),
        ),
        (
            '[destinations.a]\nkind = "langfuse"\npublic_key = "pk-lf-a"\n',
            (
                "[destinations.a] secret_key is missing, while public_key is stated: give secret_key, secret_key_env or "
                "secret_key_file"
            ),
        ),
        (
            '[destinations.a]\nkind = "langfuse"\nsecret_key = "sk-lf-hidden1"\n',
            (
                "[destinations.a] public_key is missing, while secret_key is stated: give public_key, public_key_env or "
                "public_key_file"
            ),
        ),
        (
            f'[destinations.a]\nkind = "langfuse"\n{TWO_KEYS}secret_key_env = "X"\n',
            "[destinations.a] secret_key is one of several ways (secret_key and secret_key_env): keep one of them",
        ),
        (
            '[destinations.a]\nkind = "langfuse"\npublic_key = "pk-lf-a"\nsecret_key_env = "NO_SUCH"\n',
            (
                "[destinations.a] secret_key_env names 'NO_SUCH', which is not set: set NO_SUCH, or give the name of another "
                "variable"
            ),
        ),
        (
            '[destinations.a]\nkind = "langfuse"\npublic_key = "pk-lf-a"\nsecret_key_env = "hidden1key"\n',
            "[destinations.a] secret_key_env names a variable that is not set: set it, or name another one",
        ),
        (
            '[destinations.a]\nkind = "langfuse"\npublic_key = "pk-lf-a"\nsecret_key_env = "sk-lf-hidden1"\n',
            "[destinations.a] secret_key_env is no name of an environment variable: give the name, not the value",
        ),
        (
            '[destinations.a]\nkind = "langfuse"\npublic_key = "pk-lf-a"\nsecret_key_file = "/no/such"\n',
            (
                "[destinations.a] secret_key_file is '/no/such', which cannot be read (No such file or directory): mount the "
                "file there, and let the tailer's user read it"
            ),
        ),
        (
            '[destinations.a]\nkind = "langfuse"\npublic_key = "sk-lf-hidden1"\nsecret_key = "sk-lf-hidden2"\n',
            (
                "[destinations.a] public_key holds a secret key: the keys look swapped: the public key begins with pk-, the "
                "secret key with sk-"
            ),
        ),
        (
            '[destinations.a]\nkind = "langfuse"\npublic_key = "pk-lf-a"\nsecret_key = ""\n',
            "[destinations.a] secret_key is empty: give it a value, or leave it out",
        ),
        (
            f'{FILE}content_rules = [["role=ADMIN:none"]]\n',
            (
                "[destinations.a] content_rules has something else than a text in it: give a list of texts such as "
                '"role=ADMIN:none"'
            ),
        ),
        (
            f'{FILE}content_rules = [{{ role = "ADMIN" }}]\n',
            (
                "[destinations.a] content_rules has something else than a text in it: give a list of texts such as "
                '"role=ADMIN:none"'
            ),
        ),
        (
            f"{FILE}content_rules = [5]\n",
            '[destinations.a] content_rules cannot be used: give a list of texts such as "role=ADMIN:none"',
        ),
        (
            f'[destinations.a]\nkind = "langfuse"\n{TWO_KEYS}headers = {{ Authorization = "gateway-hidden" }}\n',
            (
                "[destinations.a] headers has the header 'Authorization', which the tailer sets itself: leave it out; the keys "
                "go into LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY"
            ),
        ),
        (
            f'[destinations.a]\nkind = "langfuse"\n{TWO_KEYS}ca_file = "/no/such"\n',
            "[destinations.a] ca_file is '/no/such', where there is no file: mount the file there, or leave the setting out",
        ),
        (
            '[destinations.a]\nkind = "otlp"\n',
            (
                "[destinations.a] endpoint is missing: give a URL such as http://collector:4318, or set "
                "OTEL_EXPORTER_OTLP_ENDPOINT"
            ),
        ),
        (
            '[destinations.a]\nkind = "otlp"\nendpoint = "collector:4317"\n',
            "[destinations.a] endpoint is not an http:// or https:// URL: give a URL such as http://collector:4318",
        ),
        (
            '[destinations.a]\nkind = "otlp"\nendpoint = "http://c"\nprotocol = "grpc"\n',
            "[destinations.a] protocol cannot be used: give 'http/protobuf'",
        ),
        (
            f"{FILE}[destinations.b]\nkind = 'file'\n",
            (
                "[destinations.b] is the same file as [destinations.a], where turns would be counted twice: keep one of them, "
                "and name it in the routes"
            ),
        ),
        (
            f"{FILE}path = 't.jsonl'\n[destinations.b]\nkind = 'file'\npath = 'folder/../t.jsonl'\n",
            (
                "[destinations.b] is the same file as [destinations.a], where turns would be counted twice: keep one of them, "
                "and name it in the routes"
            ),
        ),
        (
            (
                f'[destinations.a]\nkind = "langfuse"\nhost = "https://a.net"\n{TWO_KEYS}'
                f'[destinations.b]\nkind = "langfuse"\nhost = "https://A.net:443/"\n{TWO_KEYS}'
            ),
            (
                "[destinations.b] is the same project of Langfuse (host and public key) as [destinations.a], where turns "
                "would be counted twice: keep one of them, and name it in the routes"
            ),
        ),
        (
            f'[destinations.a]\nkind = "langfuse"\n{TWO_KEYS}[destinations.b]\nkind = "langfuse"\n{TWO_KEYS}',
            (
                "[destinations.b] is the same project of Langfuse (host and public key) as [destinations.a], where turns "
                "would be counted twice: keep one of them, and name it in the routes"
            ),
        ),
        (
            f'{FILE}[[routes]]\nto = ["aa"]\n',
            "[[routes]] number 1 to names 'aa', which is no destination; the closest one is a: the destinations are a",
        ),
        (
            f'otherwise = ["b"]\n{FILE}[[routes]]\nwhen = {{ tenant = ["x"] }}\nto = ["a"]\n',
            "otherwise names 'b', which is no destination: the destinations are a",
        ),
        (
            f'{FILE}[[routes]]\nwhen = {{ tenat = ["x"] }}\nto = ["a"]\n',
            (
                "[[routes]] number 1 when 'tenat' is no fact of a turn; the closest one is tenant: the facts are endpoint, "
                "model, agent, user, tenant, role, group, tag"
            ),
        ),
        (
            f"{FILE}[[routes]]\nwhen = {{ tenant = 'x' }}\nto = ['a']\n",
            """[[routes]] number 1 when['tenant'] is of another type: give a list such as ["a", "b"]""",
        ),
        (
            f"{FILE}[[routes]]\nwhen = {{ tenant = [] }}\nto = ['a']\n",
            """[[routes]] number 1 when tenant names no value: give texts or shell patterns, such as ["openAI", "gpt-4*"]""",
        ),
        (
            f"{FILE}[[routes]]\nwhen = {{ tenant = ['x'] }}\n",
            """[[routes]] number 1 to is missing: give a list such as ["default"]; [] sends nothing""",
        ),
        (
            f"{FILE}[[routes]]\nto = ['a']\n[[routes]]\nwhen = {{ tenant = ['x'] }}\nto = ['a']\n",
            "[[routes]] number 2 is never reached, because number 1 takes every turn: put it before number 1, or remove it",
        ),
        (
            (
                f"otherwise = []\n{FILE}[[routes]]\nwhen = {{ user = ['u*'] }}\nto = ['a']\n"
                "[[routes]]\nwhen = { tenant = ['x'], user = ['uv'] }\nto = ['a']\n"
            ),
            (
                "[[routes]] number 2 is never reached, because number 1 takes every turn that this one matches: put it before "
                "number 1, or remove it"
            ),
        ),
        (
            f"otherwise = ['a']\n{FILE}[[routes]]\nto = ['a']\n",
            (
                "otherwise is never reached, because a route without conditions takes every turn: remove it, or give that "
                "route conditions"
            ),
        ),
        (
            f"{FILE}[[routes]]\nwhen = {{ tenant = ['x'] }}\nto = ['a']\n",
            (
                "otherwise is missing, so it is not said where turns go that no route matches: write otherwise = "
                '["name", …] above the first table, or otherwise = [] to send them nowhere'
            ),
        ),
        (
            "[destinations.a\n",
            (
                "the file is no TOML (Expected ']' at the end of a table declaration (at line 1, column 16)): "
                "correct it there; see toml.io"
            ),
        ),
    ],
)
def test_a_mistake_is_one_line_with_table_key_and_remedy(place: Place, text: str, line: str) -> None:
    assert place.refuse(text) == [line]


def test_several_mistakes_are_told_at_once(place: Place) -> None:
    found = place.refuse(
        """
        [destinations.a]
        kind = "langfuse"
        public_key = "pk-lf-a"
        [destinations.b]
        kind = "otlp"
        [[routes]]
        to = ["c"]
        """
    )

    assert [line.split(" ")[:2] for line in found] == [
        ["[destinations.a]", "secret_key"],
        ["[destinations.b]", "endpoint"],
        ["[[routes]]", "number"],
    ]


def test_a_file_that_is_not_there_or_cannot_be_read_is_an_error_about_the_setting(place: Place) -> None:
    place.environment.setenv("TAILER_DESTINATIONS", "/no/such.toml")
    place.environment.setenv("TAILER_TEAM_A", "x")

    with pytest.raises(
        SettingsError, match=r"TAILER_DESTINATIONS \(environment\) is '/no/such.toml', where there is no"
    ):
        load_settings()


def test_a_variable_that_a_broken_file_may_name_is_no_second_mistake(place: Place) -> None:
    place.environment.setenv("TAILER_TEAM_A", "sk-lf-hidden1")

    (line,) = place.refuse("[destinations.a\n")

    assert "is no TOML" in line


def test_a_sink_beside_a_file_is_refused(place: Place) -> None:
    """Both say where traces go."""
    with pytest.raises(SettingsError, match="TAILER_SINK is set beside TAILER_DESTINATIONS"):
        place.load(FILE, TAILER_SINK="file")


def test_what_is_usable_but_in_vain_is_a_warning(place: Place) -> None:
    settings = place.load(
        """
        otherwise = ["a"]
        [destinations.a]
        kind = "file"
        [destinations.b]
        kind = "langfuse"
        public_key = "lf-b"
        secret_key = "sk-lf-hidden1"
        [[routes]]
        when = { tenant = ["x"] }
        to = ["a"]
        """,
        **KEYS,
    )

    assert [warning.split(":")[0] for warning in settings.warnings] == [
        "[destinations.b] gets nothing",
        (
            "[destinations.b] public_key does not begin with pk- as Langfuse's own keys do; that is right if it was chosen "
            "when Langfuse was set up (LANGFUSE_INIT_PROJECT_PUBLIC_KEY)"
        ),
        "LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY are not used",
    ]


def test_a_hash_beside_a_tag_with_the_id_is_refused(place: Place) -> None:
    (line,) = place.refuse(
        f'{FILE}user_id = "hash"\nuser_id_secret = "hash-hidden-hash-hidden"\n', TAILER_TAG_FACTS="user"
    )

    assert line == (
        "[destinations.a] user_id is hash, while TAILER_TAG_FACTS shows the id as a tag: leave user out of TAILER_TAG_FACTS"
    )
