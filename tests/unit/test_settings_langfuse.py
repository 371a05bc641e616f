"""Langfuse's settings take what Langfuse takes, and say what is unusual."""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailer.errors import SettingsError
from tailer.settings import Settings, describe_settings, load_settings
from tailer.settings.kinds import UnfitValueError
from tailer.settings.langfuse_access import parse_headers

URI = "mongodb://mongodb:27017/LibreChat?replicaSet=rs0"


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """A process environment with nothing of ours but a connection string, and an empty working directory."""
    for name in list(os.environ):
        if name.startswith(("TAILER_", "LANGFUSE_", "MONGO_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MONGO_URI", URI)
    return monkeypatch


def load(environment: pytest.MonkeyPatch, **values: str) -> Settings:
    for name, value in values.items():
        environment.setenv(name, value)
    return load_settings()


@pytest.mark.parametrize(
    ("public_key", "secret_key"),
    [("lf_pk_1234567890", "lf_sk_1234567890"), ("my-public", "my-secret-key"), ("p", "s"), ("pk", "sk")],
)
def test_keys_of_any_form_are_taken_with_a_warning(
    environment: pytest.MonkeyPatch, public_key: str, secret_key: str
) -> None:
    """Whoever sets up a Langfuse of his own chooses them, and its other clients take them."""
    settings = load(environment, LANGFUSE_PUBLIC_KEY=public_key, LANGFUSE_SECRET_KEY=secret_key)

    assert settings.langfuse_public_key == public_key
    found = [warning for warning in settings.warnings if "does not begin with" in warning]
    assert [warning.split()[0] for warning in found] == ["LANGFUSE_PUBLIC_KEY", "LANGFUSE_SECRET_KEY"]
    assert secret_key not in "".join(found) or len(secret_key) < 3


def test_keys_of_langfuses_own_form_are_no_warning(environment: pytest.MonkeyPatch) -> None:
    settings = load(environment, LANGFUSE_PUBLIC_KEY="pk-lf-1", LANGFUSE_SECRET_KEY="sk-lf-1")

    assert not [warning for warning in settings.warnings if "KEY" in warning]


def test_swapped_keys_are_an_error(environment: pytest.MonkeyPatch) -> None:
    """In a log the public one would be the secret."""
    with pytest.raises(SettingsError, match="look swapped"):
        load(environment, LANGFUSE_PUBLIC_KEY="sk-lf-1", LANGFUSE_SECRET_KEY="anything")


@pytest.mark.parametrize(
    ("given_name", "shown"),
    [
        ("production", "production"),
        ("Production", "production"),
        ("langfuse-staging", "staging"),
        ("LANGFUSE_langfuse-x", "x"),
        ("my-langfuse", "my-langfuse"),
        ("e" * 41, "e" * 40),
    ],
)
def test_an_environment_is_written_as_langfuse_shows_it(
    environment: pytest.MonkeyPatch, given_name: str, shown: str
) -> None:
    assert load(environment, LANGFUSE_TRACING_ENVIRONMENT=given_name).langfuse_environment == shown


def test_headers_are_secret_and_shown_nowhere(environment: pytest.MonkeyPatch) -> None:
    settings = load(environment, TAILER_LANGFUSE_HEADERS="X-Gateway-Key=hunter2")
    rows = "".join(str(row) for row in describe_settings(settings))

    assert "hunter2" not in f"{settings!r}{rows}"


@pytest.mark.parametrize(
    ("text", "headers"),
    [
        ("X-Gateway-Key=k", {"X-Gateway-Key": "k"}),
        ("CF-Access-Client-Id=a.access, CF-Access-Client-Secret=b", {"CF-Access-Client-Id": "a.access", "CF-Access-Client-Secret": "b"}),
        ("X-Token=YWJj==,X-B=1", {"X-Token": "YWJj==", "X-B": "1"}),
        ("Cookie=a, b,X-B=1", {"Cookie": "a, b", "X-B": "1"}),
        ("Proxy-Authorization=Bearer x y", {"Proxy-Authorization": "Bearer x y"}),
    ],
)  # fmt: skip
def test_headers_are_read_with_the_values_that_gateways_ask_for(text: str, headers: dict[str, str]) -> None:
    assert parse_headers(text) == headers


@given(st.text())
def test_whatever_is_read_can_be_sent(text: str) -> None:
    """A name and a value that HTTP takes, or a refusal that quotes no value."""
    headers: Mapping[str, str] = {}
    with contextlib.suppress(UnfitValueError):
        headers = parse_headers(text)

    assert all(value.isascii() and value.isprintable() for value in headers.values())
    httpx.Headers(dict(headers))


def test_a_key_without_a_certificate_is_refused(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("key")

    with pytest.raises(SettingsError, match="without TAILER_LANGFUSE_CERT_FILE"):
        load(environment, TAILER_LANGFUSE_KEY_FILE=str(tmp_path / "key.pem"))
