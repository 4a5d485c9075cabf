"""Pure functions on review texts and labels, for training and inference alike."""

import hashlib
import html
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

# A tag starts with a letter right after the bracket, so "<3" and "a < b" stay.
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
# Control characters and lone surrogates are not text; those that are white space are folded later.
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ud800-\udfff]+")
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
# No review of 37,500 of IMDB's needs more than two passes; what takes more is hostile, and loses its brackets instead.
_MOST_LEVELS = 8
_NO_MARKUP = str.maketrans("<>&", "   ")


def clean_text(text: str) -> str:
    """Strip HTML tags, comments and entities, control characters and repeated white space; normalize to NFC.

    Cleaning a cleaned text changes nothing: the steps are repeated until nothing is left to strip, since an entity may
    hide a tag (`&lt;br&gt;`) and a tag may enclose another.
    """
    for _ in range(_MOST_LEVELS):
        cleaned = _strip_once(text)
        if cleaned == text:
            return text
        text = cleaned
    return _strip_once(text.translate(_NO_MARKUP))


def _strip_once(text: str) -> str:
    if "<!--" in text:
        # Only up to the last end: each start after it would search to the end of the text, 0.7 s for 5,000 of them.
        end = text.rfind("-->") + 3
        text = _COMMENT.sub(" ", text[:end]) + text[end:]
    if "<" in text:
        text = _TAG.sub(" ", text)
    if "&" in text:
        text = html.unescape(text)
    if not text.isprintable():
        text = _CONTROL.sub("", text)
    if not text.isascii():  # after the above, which may have been between a letter and its accent
        text = unicodedata.normalize("NFC", text)
    return " ".join(text.split())


def parse_label(value: Any, label_names: Sequence[str]) -> int | None:
    """The label_id of a class name, in any case, or of a class number, also as text or whole float; else None.

    True and False are names, not 1 and 0.
    """
    if isinstance(value, (bool, np.bool_)):
        value = str(value)
    if isinstance(value, str):
        name = value.strip().casefold()
        for label_id, known in enumerate(label_names):
            if name == known.casefold():
                return label_id
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return int(number) if number in range(len(label_names)) else None


def row_id_of(text: str) -> str:
    """Name a cleaned review by its content: 16 hexadecimal digits, the first half of its 128-bit BLAKE2b hash."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()[:16]


def row_keys(row_ids: Iterable[str]) -> np.ndarray:
    """Turn names of reviews into uint64 numbers, which take 8 bytes each and have the same order."""
    return np.frombuffer(bytes.fromhex("".join(row_ids)), dtype=">u8").astype(np.uint64)


def names_of_keys(keys: np.ndarray) -> list[str]:
    """Turn numbers of reviews back into their names."""
    digits = keys.astype(">u8").tobytes().hex()
    return [digits[start : start + 16] for start in range(0, len(digits), 16)]
