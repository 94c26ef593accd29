"""Commands print names as they are, whatever markup or emoji codes stand in them."""

from __future__ import annotations

import pytest

from partclipseg.apps.terminal import plain_console


@pytest.mark.parametrize("text", ["a:dog:b.jpg", "[bold]dog[/]", "[/] 12 %", "word " * 40, "dog's ear 0.25"])
@pytest.mark.parametrize("stderr", [False, True])
def test_text_is_printed_as_it_is(capsys, text, stderr):
    plain_console(stderr).print(text)
    out, err = capsys.readouterr()
    assert (err if stderr else out) == f"{text}\n"
