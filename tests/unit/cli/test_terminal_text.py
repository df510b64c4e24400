import pytest

from fanwire.client.cli.terminal_text import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, ümläut, 株", "plain text, ümläut, 株"),
        ("a\nb\tc", r"a\nb\tc"),
        ("\x1b[2J\x07", r"\x1b[2J\x07"),
        ("\x9b31m", r"\x9b31m"),
        ("\u202eabc", r"\u202eabc"),
        ("\ud800", r"\ud800"),
    ],
)
def test_nothing_that_a_terminal_would_obey(text: str, shown: str) -> None:
    """Printable text stays; control characters, C1 too, come as escapes."""
    assert printable(text) == shown
