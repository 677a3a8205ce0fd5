"""Names from strangers: what a file may be called.

Names end up in paths, in headers, on terminals and in browsers. They are kept byte for byte or
refused; nothing is silently replaced, because a job refers to its files by name.
"""

from __future__ import annotations

import re
from mimetypes import MimeTypes
from unicodedata import category

from services.artifacts.errors import InvalidName

PART_BYTES_MAX = 255
PATH_BYTES_MAX = 1024
DEPTH_MAX = 16
DEFAULT_CONTENT_TYPE = "application/octet-stream"

# Built in only: the machine's own tables would make the answer depend on the machine.
_TYPES = MimeTypes(filenames=())
_ENCODED = {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz"}
_CONTENT_TYPE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+(;[ -~]*)?")
_PLAIN = re.compile(r"[A-Za-z0-9_. +=@,()\[\]-]+")
# Letters that turn the reading order around make `txt.exe` look like `exe.txt`.
_BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
# Control letters, halves of surrogate pairs, line and paragraph separators.
_BANNED = frozenset({"Cc", "Cs", "Zl", "Zp"})


def input_filename(text: str) -> str:
    """`text` if it can name a file in one folder. Raises InvalidName, which says why not."""
    problem = _part_problem(text)
    if problem:
        raise InvalidName(f"filename {problem}", details={"field": "filename"})
    return text


def artifact_path(text: str) -> str:
    """`text` as a relative path with `/` between its parts, without empty ones and `.`.

    Raises InvalidName for what leaves the folder or cannot be kept safely.
    """
    problem = _path_problem(text)
    parts = [part for part in text.split("/") if part not in ("", ".")] if not problem else []
    if not problem and not parts:
        problem = "must name a file"
    if len(parts) > DEPTH_MAX:
        problem = f"must not lie deeper than {DEPTH_MAX} folders"
    for part in parts:
        problem = problem or _part_problem(part)
    if problem:
        raise InvalidName(f"artifact filename {problem}", details={"field": "filename"})
    return "/".join(parts)


def content_type(text: str) -> str:
    """The MIME type as sent, or the one for plain bytes. Raises InvalidName."""
    if not text:
        return DEFAULT_CONTENT_TYPE
    if not _CONTENT_TYPE.fullmatch(text):
        raise InvalidName(
            "content_type must be a MIME type such as text/plain", details={"field": "content_type"}
        )
    return text


def kind_word(text: str) -> str:
    """The kind as sent; `input` when there is none. Raises InvalidName."""
    if any(category(letter) in _BANNED for letter in text):
        raise InvalidName("kind must be a word such as input or script", details={"field": "kind"})
    return text or "input"


def guess_content_type(path: str) -> str:
    """MIME type by the name's ending; never by its content, which a stranger wrote."""
    guessed, encoding = _TYPES.guess_type(path.rpartition("/")[2], strict=False)
    if encoding is not None:
        return _ENCODED.get(encoding, DEFAULT_CONTENT_TYPE)
    return guessed or DEFAULT_CONTENT_TYPE


def _path_problem(text: str) -> str:
    if not text:
        return "must not be empty"
    if text.startswith("/"):
        return "must be relative to the artifacts folder"
    if text.endswith(("/", "/.")):
        return "must name a file, not a folder"
    if len(text.encode("utf-8", "surrogatepass")) > PATH_BYTES_MAX:
        return f"must be at most {PATH_BYTES_MAX} bytes long"
    return ""


def _part_problem(text: str) -> str:
    if text in ("", ".", ".."):
        return "must be a file name and not '.' or '..'"
    if len(text) <= PART_BYTES_MAX and _PLAIN.fullmatch(text):
        return ""
    if "/" in text or "\\" in text:
        return "must not contain / or \\ inside of a name"
    if any(category(letter) in _BANNED or letter in _BIDI for letter in text):
        return "must not contain control characters"
    if len(text.encode()) > PART_BYTES_MAX:
        return f"must be at most {PART_BYTES_MAX} bytes long"
    return ""
