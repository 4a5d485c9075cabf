"""Addresses of stores, such as `s3://bucket/a.csv`, and how they are shown: without passwords."""

import re
from typing import Any

HIDDEN = "***"

# Lengths are bounded, so that a long text of nothing but such beginnings takes no quadratic time. A slash in a password
# is not allowed, but possible; digits before one are a port. On the web a user's name alone may be a token.
_LOGIN = re.compile(
    r"(?P<web>\b(?:https?|ftps?)://)[^\s/]{0,1000}@|(?P<other>://)[^\s/@:]{0,200}:(?!\d+(?:/|\s|$))\S{0,1000}@",
    re.IGNORECASE,
)
# Of signed addresses; the quote and punctuation that end an address in a sentence are no part of it.
_QUERY = re.compile(r"(\bhttps?://[^\s?]{0,1000}\?)\S+?(?=['\"]?[:;,.)]*(?:\s|$))", re.IGNORECASE)


def is_address(source: str) -> bool:
    """Whether a source names a store by a protocol, as `s3://` does."""
    return "://" in source


def redact(text: str) -> str:
    """Hide the login, and on the web the query string, of every address in a text."""
    if not is_address(text):
        return text
    text = _LOGIN.sub(lambda found: f"{found['web'] or found['other']}{HIDDEN}@", text)
    return _QUERY.sub(rf"\g<1>{HIDDEN}", text)


def redact_values(values: dict[str, Any]) -> dict[str, Any]:
    """Redact the texts among values, to be recorded or shown."""
    return {name: redact(value) if isinstance(value, str) else value for name, value in values.items()}
