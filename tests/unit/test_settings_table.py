"""The table of settings: complete, explained, traceable to its source, and free of secrets."""

import dataclasses
import json
import os
from pathlib import Path

import pytest

from tailer.settings import SettingRow, Settings, describe_settings, load_settings
from tailer.settings.environment import collect_settings
from tailer.settings.table import format_table

URI = "mongodb://user:hunter2@mongodb:27017/chat?replicaSet=rs0"


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """A process environment with nothing of ours in it, and an empty working directory."""
    for name in list(os.environ):
        if name.startswith(("TAILER_", "LANGFUSE_", "MONGO_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return monkeypatch


def rows(environment: pytest.MonkeyPatch, **values: str) -> dict[str, SettingRow]:
    for name, value in {"MONGO_URI": URI, **values}.items():
        environment.setenv(name, value)
    return {row.name: row for row in describe_settings(load_settings())}


def test_every_setting_has_a_row_with_default_and_reason(clean_environment: pytest.MonkeyPatch) -> None:
    """Nothing that can be set is left out, and no name means two settings."""
    found = rows(clean_environment)

    settings = collect_settings(Settings.model_fields)
    assert set(Settings.model_fields) - {"findings"} == set(settings)
    assert {setting.names[0] for setting in settings.values()} == set(found)
    assert all(row.default and row.value and len(row.explanation) > 30 for row in found.values())
    names = [name for row in found.values() for name in (row.name, *row.other_names)]
    assert len(set(names)) == len(names)


def test_names_that_end_in_a_unit_have_that_unit(clean_environment: pytest.MonkeyPatch) -> None:
    """The name of a duration in the environment says its unit, as does its row."""
    for row in rows(clean_environment).values():
        suffix = row.name.rpartition("_")[2].lower()
        if suffix in {"seconds", "days", "bytes"}:
            assert suffix == row.unit


@pytest.mark.parametrize(
    ("values", "name", "value", "source"),
    [
        ({}, "TAILER_SETTLE_SECONDS", "3", "default"),
        ({"TAILER_SETTLE_SECONDS": "0.5"}, "TAILER_SETTLE_SECONDS", "0.5", "environment"),
        ({"LANGFUSE_FLUSH_INTERVAL": "100"}, "LANGFUSE_FLUSH_INTERVAL", "100", "environment"),
        ({}, "TAILER_EXPORT_RECORD_DAYS", "730", "default"),
        ({"LANGFUSE_BASE_URL": "http://a"}, "LANGFUSE_HOST", "http://a", "environment (LANGFUSE_BASE_URL)"),
        ({}, "TAILER_MONGO_DATABASE", "chat", "path of the URI"),
        ({"LANGFUSE_DEBUG": "1"}, "TAILER_LOG_LEVEL", "debug", "LANGFUSE_DEBUG"),
        ({"TAILER_TAGS": "a,b"}, "TAILER_TAGS", "a,b", "environment"),
        ({"TAILER_TAGS": ","}, "TAILER_TAGS", "none", "environment"),
        ({}, "TAILER_SINK", "file", "default"),
        ({}, "LANGFUSE_ENABLED", "true", "default"),
    ],
)
def test_a_row_tells_the_value_and_where_it_came_from(
    clean_environment: pytest.MonkeyPatch, values: dict[str, str], name: str, value: str, source: str
) -> None:
    """In the unit of the setting, with the name that was used where there are several."""
    row = rows(clean_environment, **values)[name]

    assert (value, source) == (row.value, row.source)


def test_a_value_from_dotenv_or_from_code_says_so(clean_environment: pytest.MonkeyPatch) -> None:
    """The working directory's file, and what a command decided."""
    Path(".env").write_text("TAILER_HTTP_HOST=127.0.0.1\n", encoding="utf-8")
    clean_environment.setenv("MONGO_URI", URI)
    clean_environment.setenv("TAILER_HTTP_PORT", "1")

    found = {row.name: row.source for row in describe_settings(load_settings(http_port=0))}

    assert (found["TAILER_HTTP_HOST"], found["TAILER_HTTP_PORT"]) == (".env", "command")


def test_secrets_are_masked_in_rows_and_table(clean_environment: pytest.MonkeyPatch) -> None:
    """Of the public key the last four signs, of the secret key none, of the URI all but the password."""
    found = rows(
        clean_environment, LANGFUSE_PUBLIC_KEY="pk-lf-0123456789", LANGFUSE_SECRET_KEY="sk-lf-9876543210"
    )

    assert (found["LANGFUSE_PUBLIC_KEY"].value, found["LANGFUSE_SECRET_KEY"].value) == ("set (…6789)", "set")
    assert found["TAILER_MONGO_URI"].value == "mongodb://user:****@mongodb:27017/chat?replicaSet=rs0"
    shown = json.dumps([dataclasses.asdict(row) for row in found.values()])
    shown += format_table(list(found.values()), embolden=str)
    assert not [secret for secret in ("hunter2", "0123456789", "9876543210", "3210") if secret in shown]


def test_the_columns_of_the_table_are_aligned(clean_environment: pytest.MonkeyPatch) -> None:
    """Also after a value that is too long for its column: the rest stands below, under its heading."""
    table = format_table(list(rows(clean_environment).values()), embolden=lambda heading: f"*{heading}*")

    lines = table.splitlines()
    columns = {name: lines[0].index(name) for name in ("value", "unit", "source", "default")}
    settle = next(line for line in lines if "TAILER_SETTLE_SECONDS" in line)
    assert (settle[columns["value"] :][:2], settle[columns["unit"] :][:7]) == ("3 ", "seconds")
    below = lines[next(index for index, line in enumerate(lines) if "TAILER_MONGO_URI" in line) + 1]
    assert (columns["source"], "required") == (len(below) - len(below.lstrip()), below[columns["default"] :])
    assert [line for line in lines if line.startswith("*")] == [
        "*Langfuse*",
        "*MongoDB*",
        "*Turns*",
        "*What is sent*",
        "*Delivery*",
        "*Operation*",
    ]
