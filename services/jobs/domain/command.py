"""The command of a job: from the forms that clients send to a first word and further words."""

from __future__ import annotations

import shlex

from services.jobs.domain.checks import Report
from services.jobs.domain.draft import Draft

COMMAND_CHARACTERS_MAX = 4096
UPLOAD_HINT = "Upload long scripts with POST /v1/job-inputs and name them in script_files."


def normalise_command(draft: Draft, report: Report) -> tuple[str, tuple[str, ...]]:
    """(first word, further words); ("", ()) runs the image's own command.

    A list is taken as it is, and a list of more than one word is not joined with `args`. A string
    is one word when `args` is given, and is split as a POSIX shell splits words otherwise.
    """
    words = _words(draft, report)
    length = sum(map(len, words))
    if length > COMMAND_CHARACTERS_MAX:
        report.error(
            "COMMAND_TOO_LONG",
            "command",
            f"command and args have {length} characters; {COMMAND_CHARACTERS_MAX} is the limit",
            UPLOAD_HINT,
        )
    if any("\0" in word for word in words):
        report.error("COMMAND_NUL", "command", "command and args must not hold NUL characters")
    return (words[0], tuple(words[1:])) if words else ("", ())


def _words(draft: Draft, report: Report) -> list[str]:
    if draft.command_is_text:
        return _from_text(draft, report)
    if not draft.command:
        return _only_args(draft, report)
    if not draft.command[0].strip():
        report.error("COMMAND_EMPTY", "command", "the first word of command is empty")
    if len(draft.command) > 1 and draft.args:
        report.warn(
            "ARGS_IGNORED",
            "args",
            "args is not joined with a command that is a list of several words",
            "Put all words in command, or send command as one string.",
        )
        return list(draft.command)
    return [*draft.command, *draft.args]


def _from_text(draft: Draft, report: Report) -> list[str]:
    text = draft.command[0] if draft.command else ""
    if not text.strip():
        return _only_args(draft, report)
    if draft.args:
        return [text, *draft.args]
    try:
        return shlex.split(text)
    except ValueError as error:
        report.error(
            "COMMAND_QUOTES",
            "command",
            f"command cannot be split into words: {error}",
            "Close the quote, or send command as a list of words.",
        )
        return []


def _only_args(draft: Draft, report: Report) -> list[str]:
    if draft.args:
        report.error(
            "ARGS_WITHOUT_COMMAND",
            "args",
            "args needs a command",
            "Send the program to run as command.",
        )
    return []
