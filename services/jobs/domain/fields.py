"""Fields of a draft that have rules of their own: environment, artifacts, callback, names."""

from __future__ import annotations

import posixpath
import re
from urllib.parse import urlsplit

from services.jobs.domain.checks import INVALID_ARTIFACT, Report
from services.jobs.domain.draft import CallbackDraft, Draft
from services.jobs.domain.spec import ARTIFACTS, Callback

ENVIRONMENT_ENTRIES_MAX = 256
ENVIRONMENT_NAME_MAX = 128
ENVIRONMENT_VALUE_BYTES_MAX = 32 * 1024
ENVIRONMENT_BYTES_MAX = 128 * 1024
OWN_PREFIX = "JUNGLEGRID_"
CALLBACK_ENTRIES_MAX = 16
CALLBACK_KEY_MAX = 64
CALLBACK_VALUE_MAX = 512
CALLBACK_TOKEN_MAX = 4096
URL_MAX = 2048
ARTIFACT_PATH_MAX = 1024
LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]*", re.ASCII)
_TOKEN = re.compile(r"[\x21-\x7e]+", re.ASCII)
_URL = re.compile(r"[\x21-\x7e]+", re.ASCII)
# As registries read references: host[:port]/ only in front of a path, path in lower case.
_HOST = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_PART = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
_IMAGE = re.compile(
    rf"(?:{_HOST}(?:\.{_HOST})*(?::[0-9]{{1,5}})?/)?{_PART}(?:/{_PART})*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?"
    r"(?:@[A-Za-z][A-Za-z0-9]*(?:[+._-][A-Za-z][A-Za-z0-9]*)*:[0-9A-Fa-f]{32,128})?",
    re.ASCII,
)
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def check_names(draft: Draft, report: Report) -> None:
    """Name, image and client id hold nothing that could not be shown or stored."""
    if CONTROL.search(draft.name):
        report.error("NAME_INVALID", "name", "name must not hold control characters")
    if draft.image.strip() and not _IMAGE.fullmatch(draft.image.strip()):
        report.error(
            "IMAGE_INVALID",
            "image",
            f"'{draft.image[:80]}' is not an image reference",
            "Send a reference like registry.example.com/team/image:tag.",
        )
    if CONTROL.search(draft.client_id):
        report.error("ID_INVALID", "id", "id must not hold control characters")


def check_environment(draft: Draft, report: Report) -> dict[str, str]:
    """The environment as it is kept; what the grid sets itself is laid over it at launch."""
    kept: dict[str, str] = {}
    total = 0
    for name, value in draft.environment.items():
        total += len(name) + len(value.encode())
        if not _NAME.fullmatch(name) or len(name) > ENVIRONMENT_NAME_MAX:
            report.error(
                "ENVIRONMENT_NAME",
                "environment",
                f"'{name[:64]}' is not a name for a variable",
                f"Use letters, digits and _, not a digit first, {ENVIRONMENT_NAME_MAX} at most.",
            )
        elif "\0" in value or len(value.encode()) > ENVIRONMENT_VALUE_BYTES_MAX:
            report.error(
                "ENVIRONMENT_VALUE",
                "environment",
                f"the value of {name} holds a NUL or has more than"
                f" {ENVIRONMENT_VALUE_BYTES_MAX} bytes",
                "Upload large values as input files.",
            )
        elif name.startswith(OWN_PREFIX):
            report.warn(
                "ENVIRONMENT_RESERVED",
                "environment",
                f"{name} has a prefix of the grid's own, which overwrites it where it sets it",
                f"Choose a name that does not start with {OWN_PREFIX}.",
            )
            kept[name] = value
        else:
            kept[name] = value
    if len(draft.environment) > ENVIRONMENT_ENTRIES_MAX or total > ENVIRONMENT_BYTES_MAX:
        report.error(
            "ENVIRONMENT_TOO_LARGE",
            "environment",
            f"environment may have {ENVIRONMENT_ENTRIES_MAX} entries and"
            f" {ENVIRONMENT_BYTES_MAX} bytes in all",
            "Upload large values as input files.",
        )
    return kept


def normalise_artifacts(draft: Draft, report: Report) -> tuple[str, ...]:
    """Absolute paths under /workspace/artifacts, each once, in the order sent."""
    found: dict[str, None] = {}
    for sent in draft.expected_artifacts:
        path = posixpath.normpath(posixpath.join(ARTIFACTS, sent))
        inside = path.startswith(ARTIFACTS + "/") and len(path) <= ARTIFACT_PATH_MAX
        if not sent.strip() or CONTROL.search(sent) or not inside:
            report.error(
                INVALID_ARTIFACT,
                "expected_artifacts",
                f"'{sent[:80]}' is not a file under {ARTIFACTS}",
                f"Send a path like {ARTIFACTS}/result.json, or result.json.",
                reason=INVALID_ARTIFACT,
            )
        else:
            found[path] = None
    return tuple(found)


def normalise_callback(draft: Draft, report: Report) -> tuple[Callback | None, str]:
    """(callback, bearer token); the flat spelling counts where both are given."""
    nested = draft.nested_callback
    flat = draft.callback
    both = CallbackDraft(
        flat.url or nested.url, flat.token or nested.token, flat.metadata or nested.metadata
    )
    if not both.url:
        if both.token or both.metadata:
            report.error(
                "CALLBACK_URL_MISSING",
                "callback_url",
                "callback_auth_token and callback_metadata need a callback_url",
                "Send callback_url too.",
            )
        return None, ""
    _check_url(both.url, report)
    if both.token and (len(both.token) > CALLBACK_TOKEN_MAX or not _TOKEN.fullmatch(both.token)):
        report.error(
            "CALLBACK_TOKEN",
            "callback_auth_token",
            "callback_auth_token may hold printable ASCII without spaces,"
            f" {CALLBACK_TOKEN_MAX} characters at most",
        )
    _check_metadata(both, report)
    return Callback(both.url, tuple(sorted(both.metadata.items()))), both.token


def _check_url(url: str, report: Report) -> None:
    problem = url_problem(url)
    if problem:
        report.error(
            "CALLBACK_URL",
            "callback_url",
            f"callback_url {problem}",
            "Send an https URL; http is accepted for localhost only.",
        )


def url_problem(url: str) -> str:
    """What is wrong with a callback's URL, as the end of a sentence; empty when nothing is."""
    if len(url) > URL_MAX or not _URL.fullmatch(url):
        return f"must be printable ASCII of at most {URL_MAX} characters"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "is not a URL"
    if not host or port == 0:
        return "has no host"
    if parts.username is not None or parts.password is not None:
        return "must not hold a user name or password; use callback_auth_token"
    if parts.scheme == "https" or (parts.scheme == "http" and host in LOCAL_HOSTS):
        return ""
    return "must use https unless it targets localhost"


def _check_metadata(callback: CallbackDraft, report: Report) -> None:
    if len(callback.metadata) > CALLBACK_ENTRIES_MAX:
        report.error(
            "CALLBACK_METADATA",
            "callback_metadata",
            f"callback_metadata may have {CALLBACK_ENTRIES_MAX} entries",
        )
    for key, value in callback.metadata.items():
        if len(key) > CALLBACK_KEY_MAX or not _KEY.fullmatch(key):
            report.error(
                "CALLBACK_METADATA",
                "callback_metadata",
                f"'{key[:64]}' is not a key for callback_metadata",
                f"Use letters, digits, _ . : and -, {CALLBACK_KEY_MAX} characters at most.",
            )
        elif len(value) > CALLBACK_VALUE_MAX:
            report.error(
                "CALLBACK_METADATA",
                "callback_metadata",
                f"the value of '{key}' has more than {CALLBACK_VALUE_MAX} characters",
            )
