"""Which proxy leads to Langfuse, by what clusters and corporate images have in their environment."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailer.errors import DestinationError
from tailer.outbound.proxies import choose_proxy

CLOUD = "https://cloud.langfuse.com"


def url_of(address: str, **environment: str) -> str | None:
    proxy = choose_proxy(address, environment)
    return None if proxy is None else proxy.url


@pytest.mark.parametrize(
    ("address", "environment", "proxy"),
    [
        (CLOUD, {}, None),
        (CLOUD, {"HTTPS_PROXY": ""}, None),
        (CLOUD, {"HTTPS_PROXY": "http://p:3128"}, "http://p:3128"),
        (CLOUD, {"https_proxy": "http://a", "HTTPS_PROXY": "http://b"}, "http://a"),
        (CLOUD, {"HTTP_PROXY": "http://p"}, None),
        (CLOUD, {"ALL_PROXY": "socks5://p:1080"}, "socks5://p:1080"),
        (CLOUD, {"HTTPS_PROXY": "p:3128"}, "http://p:3128"),
        ("http://langfuse:3000", {"HTTP_PROXY": "http://p", "HTTPS_PROXY": "http://q"}, "http://p"),
    ],
)
def test_the_variable_for_the_scheme_wins_over_the_one_for_all(
    address: str, environment: dict[str, str], proxy: str | None
) -> None:
    assert url_of(address, **environment) == proxy


@pytest.mark.parametrize(
    ("address", "exceptions", "is_direct"),
    [
        (CLOUD, "10.0.0.0/8,fd00::/8,[::1]", False),
        (CLOUD, "::1/128, localhost ,", False),
        (CLOUD, "*", True),
        (CLOUD, "langfuse.com", True),
        (CLOUD, ".langfuse.com", True),
        (CLOUD, "*.langfuse.com", True),
        (CLOUD, "fuse.com", False),
        (CLOUD, "cloud.langfuse.com:443", True),
        (CLOUD, "cloud.langfuse.com:8443", False),
        (CLOUD, "https://cloud.langfuse.com", True),
        ("http://10.1.2.3:3000", "10.0.0.0/8", True),
        ("http://10.1.2.3:3000", "10.1.2.3", True),
        ("http://11.1.2.3:3000", "10.0.0.0/8", False),
        ("http://[fd00::7]:3000", "10.0.0.0/8,fd00::/8", True),
        ("http://[fd00::7]:3000", "[fd00::7]", True),
        ("http://[fd00::7]:3000", "[fd00::7]:3000", True),
        ("http://[fd00::7]:3000", "[fd00::7]:80", False),
        ("http://[fd00::7]:3000", "[fd00::]/8", True),
        ("http://[fe80::7]:3000", "fd00::/8", False),
        ("http://langfuse:3000", "langfuse", True),
    ],
)
def test_exceptions_are_names_domains_addresses_and_networks(
    address: str, exceptions: str, *, is_direct: bool
) -> None:
    found = url_of(address, ALL_PROXY="http://p", NO_PROXY=exceptions)

    assert (found is None) is is_direct


@pytest.mark.parametrize("value", ["ftp://p", "http://", "socks4://p:1080", "http://p:99999", "http://[::1"])
def test_what_is_no_proxy_is_named_by_its_variable_and_not_shown(value: str) -> None:
    """A proxy's URL often holds a password."""
    with pytest.raises(DestinationError) as refused:
        choose_proxy(CLOUD, {"https_proxy": f"{value}?hunter2"})

    assert refused.value.subject == "https_proxy"
    assert "hunter2" not in str(refused.value)
    assert "hunter2" not in repr(choose_proxy(CLOUD, {"https_proxy": "http://u:hunter2@p"}))


@given(st.text())
def test_no_list_of_exceptions_is_an_error(exceptions: str) -> None:
    assert url_of(CLOUD, HTTPS_PROXY="http://p", NO_PROXY=exceptions) in ("http://p", None)
