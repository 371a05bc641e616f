"""Which files a URI stands on, and when they count as renewed."""

from pathlib import Path

import pytest

from tailer.mongo.credential_files import CredentialFiles, named_files, unreadable_files


def uri(*options: str) -> str:
    return "mongodb://h/LibreChat?" + "&".join(options)


def test_every_file_of_the_uri_is_known_however_its_option_is_written(tmp_path: Path) -> None:
    authority, key = tmp_path / "ca.pem", tmp_path / "client key.pem"
    found = named_files(
        uri("tls=true", f"tlscafile={authority}", f"tlsCertificateKeyFile={tmp_path}/client%20key.pem")
    )

    assert found == {"tlscafile": authority, "tlscertificatekeyfile": key}


def test_a_file_counts_as_renewed_once_it_has_other_contents(tmp_path: Path) -> None:
    """Touched, or gone for a moment while it is replaced, it does not."""
    authority, holder = tmp_path / "ca.pem", tmp_path / ".env"
    authority.write_text("first")
    holder.write_text("first")
    files = CredentialFiles([uri("tls=true", f"tlsCAFile={authority}")], holders=[holder])

    authority.write_text("first")
    assert files.changed() == []
    authority.unlink()
    assert files.changed() == []
    authority.write_text("second")
    assert files.changed() == [authority]
    holder.write_text("second")
    assert set(files.changed()) == {authority, holder}


def test_a_file_that_appears_later_is_renewed(tmp_path: Path) -> None:
    authority = tmp_path / "ca.pem"
    files = CredentialFiles([uri("tls=true", f"tlsCAFile={authority}")])
    authority.write_text("late")

    assert files.changed() == [authority]


def test_the_authorities_of_the_machine_count_where_the_uri_names_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store.pem"
    monkeypatch.setenv("SSL_CERT_FILE", str(store))

    assert named_files(uri("tls=true")) == {"SSL_CERT_FILE": store}
    assert named_files(uri("tls=true", "tlsCAFile=/ca.pem")) == {"tlscafile": Path("/ca.pem")}
    assert named_files(uri()) == {}


def test_a_file_that_cannot_be_read_is_named_with_the_reason(tmp_path: Path) -> None:
    assert unreadable_files(uri("tls=true", f"tlsCAFile={tmp_path}/none.pem")) == [
        f"tlscafile={tmp_path}/none.pem (FileNotFoundError)"
    ]
