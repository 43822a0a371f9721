"""The rule for redirects, which models and recordings share."""

import pytest

from stonecli.errors import WebError
from stonecli.util.web import check_redirect


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("https://github.com/x", "https://objects.githubusercontent.com/y?token=z"),
        ("http://example.org/x", "https://example.org/x"),
        ("http://example.org/x", "https://other.example/x"),
        ("http://nas:8080/a.mp3", "http://nas:9090/b.mp3"),
        ("https://192.168.1.2/a.mp3", "https://192.168.1.3/a.mp3"),
    ],
)
def test_redirects_that_are_followed(old: str, new: str) -> None:
    check_redirect(old, new)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("https://example.org/x", "http://example.org/x", "from https to http"),
        ("http://example.org/x", "http://other.example/x", "another host with http"),
        ("http://127.0.0.1/x", "http://localhost/x", "another host with http"),
        ("https://example.org/x", "ftp://example.org/x", "neither http nor https"),
        ("https://example.org/x", "file:///etc/passwd", "neither http nor https"),
        ("https://example.org/x", "https://", "neither http nor https"),
        ("https://example.org/x", "https://name:word@example.org/x", "user name and password"),
        ("https://example.org/x", "https://localhost/x", "private network"),
        ("https://example.org/x", "https://127.0.0.1/x", "private network"),
        ("https://example.org/x", "https://[::1]/x", "private network"),
        ("https://example.org/x", "https://10.0.0.1/x", "private network"),
        ("https://example.org/x", "https://169.254.169.254/latest/meta-data", "private network"),
        ("https://example.org/x", "https://[::1/x", "invalid URL"),
        ("https://example.org/x", "https://example.org:99999/x", "invalid URL"),
    ],
)
def test_redirects_that_are_refused(old: str, new: str, reason: str) -> None:
    with pytest.raises(WebError, match=reason):
        check_redirect(old, new)
