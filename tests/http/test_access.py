"""The way to Langfuse through what stands before it: headers, certificates, proxies. Real sockets, real TLS."""

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from tailer.core.identity import ObservationId, turn_trace_id
from tailer.core.librechat.attached_files import AttachedFile
from tailer.core.trace.followup import Score, ScoreType
from tailer.core.trace.otlp import SpanContext
from tailer.errors import DestinationError
from tailer.events import CertificateRenewed, CertificateUnusable
from tailer.flow.sending.outcomes import Delivered, Found, Refused, Retry
from tailer.langfuse.access import Access
from tailer.langfuse.annotations import LangfuseAnnotations
from tailer.langfuse.connection import Credentials, LangfuseConnection, Proven, Unreachable
from tailer.langfuse.examination import Ailing, Health, ask_health, ask_project
from tailer.langfuse.media import LangfuseMedia, MediaOptions
from tailer.langfuse.spans import LangfuseSpans
from tailer.outbound.certificates import CertificateFiles, Certificates
from tests.evidence import Events, make_trace, observation_ids, probes, trace_ids
from tests.fakes.langfuse import FakeLangfuse
from tests.http.authorities import Authority, Signed, make_authority
from tests.http.gateway import closed_proxy, gateway_to, http_proxy, socks_proxy

PATIENCE = timedelta(seconds=2)
HEADERS = {"X-Gateway-Key": "k", "CF-Access-Client-Id": "a.access"}
SCORE = Score(
    "feedback-1", turn_trace_id("m1"), "user-feedback", ScoreType.BOOLEAN, 1, None, {}, 1_760_000_000_000
)


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower() in (
            "http_proxy",
            "https_proxy",
            "all_proxy",
            "no_proxy",
            "ssl_cert_file",
            "ssl_cert_dir",
        ):
            monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"), "ours")


@pytest.fixture(scope="module")
def server(authority: Authority) -> Signed:
    return authority.sign("server")


def credentials_for(url: str) -> Credentials:
    return Credentials(url, "pk-lf-test", "sk-lf-test")


def connect(url: str, access: Access, emit: Events | None = None) -> LangfuseConnection:
    return LangfuseConnection(
        credentials_for(url), request_timeout=PATIENCE, connections=1, access=access, emit=emit or Events()
    )


async def send_one(connection: LangfuseConnection) -> object:
    sink = LangfuseSpans(connection, SpanContext("test"))
    return await sink.deliver(sink.frame([sink.encode(make_trace("m1"))]))


async def test_every_request_carries_the_headers_that_a_gateway_asks_for(tmp_path: Path) -> None:
    """Spans, scores, deletions, media with their storage, reads, and doctor's questions."""
    (tmp_path / "cat.png").write_bytes(b"picture")
    file = AttachedFile("f1", "cat.png", "image/png", 7, "/cat.png")
    access = Access(HEADERS)
    async with FakeLangfuse() as fake, gateway_to(fake.url, demands=HEADERS) as gateway:
        async with connect(gateway.url, access) as connection:
            sink = LangfuseSpans(connection, SpanContext("test"))
            annotations = LangfuseAnnotations(connection, environment="test")
            events = Events()
            media = LangfuseMedia(connection, MediaOptions(tmp_path, 100), events)

            assert await connection.prove() == Proven("Test project")
            assert await send_one(connection) == Delivered()
            assert await sink.find(probes("m1")) == Found(frozenset(observation_ids("m1")))
            assert await annotations.put_score(SCORE) == Delivered()
            assert await annotations.delete_score("feedback-1") == Delivered()
            references = await media.publish(turn_trace_id("m1"), ObservationId("1" * 16), [file])
            assert await annotations.delete_traces(trace_ids("m1")) == Delivered()
        assert isinstance(await ask_health(gateway.url, PATIENCE, access), Health)
        assert await ask_project(credentials_for(gateway.url), PATIENCE, access) == "Test project"

        assert isinstance(references, tuple)
        assert len(references) == 1
        assert fake.violations == []
        assert list(fake.media.uploaded.values()) == [b"picture"]
        assert len({path.split()[1] for path in gateway.paths}) >= 8


@pytest.mark.parametrize(
    ("refusal", "outcome"),
    [
        (403, Refused("http_403")),
        (401, Refused("http_401")),
        (200, Retry("answered with a page")),
        (302, Retry("http_302")),
    ],
)
async def test_a_gateway_that_asks_for_headers_is_told_as_one(refusal: int, outcome: object) -> None:
    """Not as wrong keys: nothing is lost, and what to do is said."""
    async with FakeLangfuse() as fake, gateway_to(fake.url, demands=HEADERS, refusal=refusal) as gateway:
        async with connect(gateway.url, Access()) as connection:
            assert await send_one(connection) == outcome
            with pytest.raises(DestinationError, match="TAILER_LANGFUSE_HEADERS"):
                await connection.prove()
        ailing = await ask_health(gateway.url, PATIENCE)

        assert isinstance(ailing, Ailing)
        assert "TAILER_LANGFUSE_HEADERS" in ailing.remedy


async def test_an_authority_of_the_house_is_trusted_besides_the_usual_ones(
    authority: Authority, server: Signed
) -> None:
    trusted = Access(files=CertificateFiles(authority.certificate))
    async with FakeLangfuse() as fake, gateway_to(fake.url, tls=authority.serve(server)) as gateway:
        async with connect(gateway.url, trusted) as connection:
            assert await send_one(connection) == Delivered()
        async with connect(gateway.url, Access()) as stranger:
            proven = await stranger.prove()

        assert isinstance(proven, Unreachable)
        assert "TAILER_LANGFUSE_CA_FILE" in proven.detail
        usual = Certificates(CertificateFiles(), {}, Events(), lambda: 0.0).context
        both = Certificates(trusted.files, {}, Events(), lambda: 0.0).context
        assert len(both.get_ca_certs()) == len(usual.get_ca_certs()) + 1


async def test_the_usual_variable_names_the_authorities_too(
    authority: Authority, server: Signed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    async with (
        FakeLangfuse() as fake,
        gateway_to(fake.url, tls=authority.serve(server)) as gateway,
        connect(gateway.url, Access()) as connection,
    ):
        assert await send_one(connection) == Delivered()


async def test_a_certificate_is_shown_where_one_is_asked_for(authority: Authority, server: Signed) -> None:
    client = authority.sign("client")
    tls = authority.serve(server, ask_clients=True)
    shown = CertificateFiles(authority.certificate, client.certificate, client.key)
    async with FakeLangfuse() as fake, gateway_to(fake.url, tls=tls) as gateway:
        async with connect(gateway.url, Access(files=shown)) as connection:
            assert await send_one(connection) == Delivered()
        async with connect(gateway.url, Access(files=CertificateFiles(authority.certificate))) as stranger:
            assert isinstance(await stranger.prove(), Unreachable)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 10
        return self.now


async def test_renewed_files_are_taken_up_without_a_restart(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The authority changes, the server follows, and so does the client's certificate."""
    monkeypatch.setattr("tailer.outbound.certificates._LOOK_SECONDS", 0.0)
    other = make_authority(tmp_path / "other", "other")
    ca, cert, key = (tmp_path / name for name in ("ca.pem", "tls.crt", "tls.key"))

    def mount(source: Authority) -> None:
        client = source.sign("renewed-client")
        for target, content in ((ca, source.certificate), (cert, client.certificate), (key, client.key)):
            target.write_bytes(content.read_bytes())

    mount(authority)
    events = Events()
    access = Access(files=CertificateFiles(ca, cert, key))
    async with FakeLangfuse() as fake:
        tls = [each.serve(each.sign("s"), ask_clients=True) for each in (authority, other)]
        async with (
            gateway_to(fake.url, tls=tls[0]) as old,
            gateway_to(fake.url, tls=tls[1]) as new,
            connect(old.url, access, events) as connection,
        ):
            assert await send_one(connection) == Delivered()
            connection.http.base_url = new.url
            assert await send_one(connection) == Retry("connection")
            mount(other)
            assert await send_one(connection) == Delivered()

    assert [event.files for event in events.of(CertificateRenewed)] == [f"{ca}, {cert}, {key}"]


def test_half_of_a_renewal_is_told_once_and_tried_again(authority: Authority, tmp_path: Path) -> None:
    """A certificate is there, and its key not yet: the former pair goes on being used."""
    first, second = authority.sign("first"), authority.sign("second")
    cert, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    cert.write_bytes(first.certificate.read_bytes())
    key.write_bytes(first.key.read_bytes())
    events = Events()
    certificates = Certificates(CertificateFiles(None, cert, key), {}, events, Clock())
    cert.write_bytes(second.certificate.read_bytes())
    certificates.renew()
    certificates.renew()
    key.write_bytes(second.key.read_bytes())
    certificates.renew()
    certificates.renew()

    (unusable,) = events.of(CertificateUnusable)
    assert unusable.file == f"TAILER_LANGFUSE_CERT_FILE={cert}"
    assert [event.files for event in events.of(CertificateRenewed)] == [f"{cert}, {key}"]


@pytest.mark.parametrize(
    ("variable", "make", "problem"),
    [
        ("SSL_CERT_FILE", Path.exists, "there is no such file"),
        ("SSL_CERT_FILE", lambda path: path.write_text("no PEM"), "it holds nothing usable"),
        ("SSL_CERT_FILE", Path.mkdir, "it cannot be read"),
        ("SSL_CERT_DIR", Path.exists, "there is no such directory"),
        ("SSL_CERT_DIR", lambda path: path.symlink_to(path), "it cannot be looked at"),
    ],
)
def test_a_file_that_cannot_be_used_is_an_error_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    variable: str,
    make: Callable[[Path], object],
    problem: str,
) -> None:
    """One line, and no traceback."""
    path = tmp_path / "missing.pem"
    make(path)
    monkeypatch.setenv(variable, str(path))

    with pytest.raises(DestinationError) as refused:
        connect("https://cloud.langfuse.com", Access())
    assert refused.value.subject == f"{variable}={path}"
    assert problem in refused.value.hint


async def test_socks_and_http_proxies_are_gone_through(monkeypatch: pytest.MonkeyPatch) -> None:
    async with FakeLangfuse() as fake, socks_proxy() as socks, http_proxy() as plain:
        for variable, proxy in (("ALL_PROXY", socks), ("http_proxy", plain)):
            monkeypatch.setenv(variable, proxy.url)
            async with connect(fake.url, Access()) as connection:
                assert await connection.prove() == Proven("Test project")
            assert proxy.asked_for == [fake.url.removeprefix("http://")]


@pytest.mark.parametrize(
    ("scheme", "outcome"), [("http", Refused("http_407")), ("https", Retry("connection"))]
)
async def test_a_proxy_that_asks_for_a_password_is_named_with_its_variables(
    monkeypatch: pytest.MonkeyPatch, scheme: str, outcome: Refused | Retry
) -> None:
    """Whether it answers itself or opens no tunnel; what stands in its address is not shown."""
    async with closed_proxy() as proxy:
        monkeypatch.setenv(f"{scheme}_proxy", proxy.url)
        async with connect(f"{scheme}://langfuse.invalid", Access()) as connection:
            sent = await send_one(connection)

    assert sent == outcome
    assert isinstance(sent, Refused | Retry)
    assert "user and a password" in sent.remedy
    assert "HTTPS_PROXY" in sent.remedy
    assert "TAILER_LANGFUSE_HEADERS" not in sent.remedy
    assert "hidden" not in sent.remedy


@pytest.mark.parametrize("exceptions", ["10.0.0.0/8,fd00::/8,[::1],127.0.0.1", "::1/128,127.0.0.0/8", "*"])
async def test_exceptions_with_ipv6_networks_work(monkeypatch: pytest.MonkeyPatch, exceptions: str) -> None:
    """As clusters write them; httpx itself fails on them before the first request."""
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", exceptions)
    async with FakeLangfuse() as fake, connect(fake.url, Access()) as connection:
        assert await send_one(connection) == Delivered()


async def test_a_proxy_that_is_not_there_is_told_and_nothing_was_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A refused proxy is no lost answer: nothing needs to be looked for."""
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    async with FakeLangfuse() as fake, connect(fake.url, Access()) as connection:
        assert await send_one(connection) == Retry("connection")
        proven = await connection.prove()

        assert isinstance(proven, Unreachable)
        assert proven.detail
