"""What readers send, as the service takes it."""

from __future__ import annotations

import pytest

from services.logs.convert import ENTRY_ID_MAX, cursor_from_text
from services.logs.errors import InvalidCursor


@pytest.mark.parametrize(("text", "entry_id"), [("", 0), ("0", 0), ("42", 42)])
def test_a_cursor_is_an_entry_id(text: str, entry_id: int) -> None:
    assert cursor_from_text(text) == entry_id
    assert cursor_from_text(str(ENTRY_ID_MAX)) == ENTRY_ID_MAX


@pytest.mark.parametrize("text", ["-1", "1e3", " 1", "abc", "\u0663", str(2**63), "9" * 5000])
def test_what_was_never_given_is_refused(text: str) -> None:
    with pytest.raises(InvalidCursor):
        cursor_from_text(text)
