"""Text from files and pipes: UTF-8, with or without a byte order mark."""

import codecs


class NotText(ValueError):
    """Bytes are not UTF-8; the message says what they are, and is written to follow what has them."""


def read_text(data: bytes) -> str:
    """Decode text. A byte order mark at its beginning, as editors on Windows write it, is not part of it.

    Raises:
        NotText: It is not UTF-8.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise NotText("is UTF-16: convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise NotText(f"is not UTF-8 text (byte {error.start}): convert it to UTF-8") from None
