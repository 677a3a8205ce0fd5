"""The form of keys: what a checksum catches, and what is kept."""

from __future__ import annotations

import re

import pytest

from libs import api_key


def test_a_minted_key_passes_and_shows_only_its_prefix() -> None:
    minted = api_key.mint()
    assert api_key.check_key_format(minted.text)
    assert minted.text.startswith("jg_") and len(minted.text) == 47
    assert minted.prefix == minted.text[:9]
    assert api_key.matches(minted.text, minted.digest)
    assert minted.text not in repr(minted)


def test_every_edit_of_one_character_is_refused() -> None:
    text = api_key.mint().text
    for place, old in enumerate(text):
        for new in api_key.ALPHABET + "_-":
            if new != old:
                assert not api_key.check_key_format(text[:place] + new + text[place + 1 :])


def test_ten_thousand_keys_are_unique_and_found_by_the_scanner() -> None:
    texts = {api_key.mint().text for _ in range(10_000)}
    assert len(texts) == 10_000
    assert all(re.fullmatch(api_key.LEAK_PATTERN, text) for text in texts)


@pytest.mark.parametrize(
    "text",
    ["", "jg_", "jg_" + "a" * 44, "jg_" + "٣" * 44, " ", "jg_" + "a" * 1_000_000, "Bearer jg_x"],
)
def test_other_text_is_refused(text: str) -> None:
    assert not api_key.check_key_format(text)


def test_kinds_do_not_pass_for_each_other() -> None:
    credential = api_key.mint(api_key.NODE_CREDENTIAL).text
    assert api_key.check_key_format(credential, api_key.NODE_CREDENTIAL)
    assert not api_key.check_key_format(credential)
    assert not api_key.check_key_format(api_key.mint().text, api_key.NODE_CREDENTIAL)


def test_unfair_bytes_are_thrown_away() -> None:
    rows = iter([bytes([255]) * 38, bytes([61]) * 38])
    assert api_key.mint(entropy=lambda count: next(rows)).text[3:41] == "z" * 38
