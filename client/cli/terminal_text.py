"""Text from others, made harmless for a terminal."""


def printable(text: str) -> str:
    r"""The text on one line, with everything that is not printable written as an escape: `\n`, `\x1b`, `\u202e`.

    What a publisher sends must not move the cursor of whoever looks at it, nor set the title of their window.
    """
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else _escaped(character) for character in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
