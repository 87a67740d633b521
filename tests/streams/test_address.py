"""Addresses: every way to write one, and none of its secrets anywhere."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab.errors import ValidationError
from hftlab.streams.address import Address
from hftlab.streams.urls import read_address


def address(url: str) -> Address:
    found = read_address(url)
    assert isinstance(found, Address), found
    return found


@pytest.mark.parametrize(
    ("url", "shown", "scheme"),
    [
        ("redis://localhost", "redis://localhost:6379/0", "redis"),
        ("redis://10.0.0.1:7000/3", "redis://10.0.0.1:7000/3", "redis"),
        ("rediss://example.org:6380", "rediss://example.org:6380/0", "rediss"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock", "unix"),
        ("unix:///run/redis.sock?db=2", "unix:///run/redis.sock", "unix"),
        ("redis://alice:s3cr3t@host", "redis://***@host:6379/0", "redis"),
        ("redis://:s3cr3t@host", "redis://***@host:6379/0", "redis"),
        ("redis://host?password=s3cr3t", "redis://***@host:6379/0", "redis"),
        ("unix:///run/redis.sock?password=s3cr3t", "unix:///run/redis.sock", "unix"),
    ],
)
def test_an_address_is_read_and_shown_without_its_secrets(url: str, shown: str, scheme: str) -> None:
    found = address(url)
    assert (str(found), found.scheme) == (shown, scheme)
    assert "s3cr3t" not in repr(found) + str(found) + repr(found.credentials) + repr(found.connection)


def test_user_and_password_reach_the_connection_unescaped() -> None:
    credentials = address("redis://al%40ice:p%2Fw%23%3A@host").credentials
    assert credentials is not None
    assert credentials.get_credentials() == ("al@ice", "p/w#:")


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost:6379/0",
        "redis://al%40ice:p%2Fw%23%3A%3F@10.0.0.1:7000/3",
        "redis://:only%20a%20password@host:6379/0",
        "rediss://u:p@host:6380/0?ssl_cert_reqs=none",
        "unix:///run/a%20b.sock?db=2&username=u&password=p%26w",
    ],
)
def test_an_address_reveals_the_whole_url_only_when_asked_to(url: str) -> None:
    again = address(address(url).reveal())
    one, other = address(url), again
    assert (str(one), one.connection) == (str(other), other.connection)
    for found in (one, other):
        assert (found.credentials is None) == ("@" not in url and "password" not in url)
    if one.credentials is not None and other.credentials is not None:
        assert one.credentials.get_credentials() == other.credentials.get_credentials()


@pytest.mark.parametrize(
    "url",
    [
        "http://host", "host:6379", "", "redis://host:port", "redis://host/abc", "unix://", "redis://:p#ss@host",
        "redis://:p/ss@host:6379", "redis://host?socket_timeout=5", "redis://host?retry_on_timeout=1", "redis://host?db=x",
        "redis://user:s3cr3t@[::1",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused_without_quoting_it(url: str) -> None:
    error = read_address(url)
    assert isinstance(error, ValidationError)
    assert "redis://user:password@host:port/db" in str(error) or "takes the options" in str(error)
    for piece in ("p#ss", "p/ss", "s3cr3t", "ss@"):
        assert piece not in str(error)


@given(password=st.text(min_size=3, max_size=40).filter(lambda text: text.strip() and text.isprintable()))
def test_no_password_is_ever_shown(password: str) -> None:
    found = read_address(f"redis://user:{quote(password, safe='')}@host")
    if isinstance(found, Address):
        assert found.scrub(f"before {password} after") == "before *** after" or password in "before *** after"
        if password not in "redis://***@host:6379/0 Address Credentials(***)":
            assert password not in f"{found!r} {found} {found.credentials!r}"


def test_a_value_that_is_no_text_is_refused() -> None:
    assert isinstance(read_address(None), ValidationError)  # type: ignore[arg-type]
    assert isinstance(read_address(b"redis://:s3cr3t@host"), ValidationError)  # type: ignore[arg-type]
