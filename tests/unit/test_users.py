"""What a user is called: the id, a keyed hash of it, or a name; never more than the operator asked for."""

import hmac
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailer.core.policy.users import USER_FIELDS, User, UserIdChoice, UserNaming, read_user
from tests.unit.documents import ANY_TEXT, USER, VALUES, response_row, trace_of, turn_record, user_row

ANNA = User(USER, "anna@example.org", "anna", "ADMIN")
SECRETS = st.binary(min_size=1, max_size=40)
HASHED = UserNaming(UserIdChoice.HASH, b"a deployment's own secret")


def test_the_id_is_the_default_and_a_name_is_shown_on_request() -> None:
    assert UserNaming().name(USER, ANNA) == USER
    assert UserNaming(UserIdChoice.EMAIL).name(USER, ANNA) == "anna@example.org"
    assert UserNaming(UserIdChoice.USERNAME).name(USER, ANNA) == "anna"


@pytest.mark.parametrize("choice", [UserIdChoice.EMAIL, UserIdChoice.USERNAME])
def test_where_the_name_is_not_known_the_id_stands(choice: UserIdChoice) -> None:
    """The collection may be unreadable, the user deleted, the field empty."""
    assert UserNaming(choice).name(USER, None) == USER
    assert UserNaming(choice).name(USER, User(USER, None, None, None)) == USER


@pytest.mark.parametrize("choice", UserIdChoice)
def test_nobody_has_no_name(choice: UserIdChoice) -> None:
    assert UserNaming(choice, b"secret").name(None, None) is None


@given(ANY_TEXT, SECRETS)
def test_a_hash_is_the_same_always_and_needs_the_secret(user_id: str, secret: bytes) -> None:
    """It is HMAC-SHA256, so that somebody with the secret can find a person's traces."""
    naming = UserNaming(UserIdChoice.HASH, secret)
    expected = hmac.new(secret, user_id.encode("utf-8", "surrogatepass"), sha256).hexdigest()[:32]

    assert naming.name(user_id, None) == naming.name(user_id, ANNA) == expected
    assert UserNaming(UserIdChoice.HASH, secret + b"x").name(user_id, None) != expected


@given(st.text("0123456789abcdef", min_size=24, max_size=24))
def test_a_hash_does_not_show_the_id(user_id: str) -> None:
    found = HASHED.name(user_id, ANNA)

    assert found is not None
    assert len(found) == 32
    assert not any(user_id[start : start + 8] in found for start in range(17))
    assert found not in (sha256(user_id.encode()).hexdigest()[:32], user_id)


@given(st.sets(ANY_TEXT, min_size=2, max_size=8))
def test_two_users_never_share_a_hash(user_ids: set[str]) -> None:
    assert len({HASHED.name(user_id, None) for user_id in user_ids}) == len(user_ids)


def test_neither_secret_nor_its_length_shows_in_the_settings_of_a_run() -> None:
    assert repr(HASHED) == "UserNaming(choice='hash')"


def test_users_are_read_only_for_names() -> None:
    needed = {choice for choice in UserIdChoice if UserNaming(choice).needs_users}

    assert needed == {UserIdChoice.EMAIL, UserIdChoice.USERNAME}


@given(st.dictionaries(st.sampled_from([*USER_FIELDS, "password"]), VALUES))
def test_no_broken_user_stops_the_reader(document: dict[str, object]) -> None:
    found = read_user(USER, document)

    for value in (found.email, found.username, found.role):
        assert value is None or value
    assert found.user_id == USER


def test_nothing_secret_is_among_the_fields_that_are_read() -> None:
    """Password, second factor and tokens lie in the same rows."""
    assert set(USER_FIELDS) == {"email", "username", "name", "role", "provider", "tenantId"}


def test_the_hash_stands_in_the_trace_in_place_of_the_id_and_nowhere_the_id() -> None:
    record = turn_record(response_row(), user_row(), user=ANNA)
    found = trace_of(record, naming=HASHED)

    assert found.user_id == HASHED.name(USER, None)
    assert USER not in str(found)
    assert "anna" not in str(found)
