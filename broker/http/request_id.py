"""What tells one HTTP request from all others, in answers and in the log."""

from __future__ import annotations

import re
import secrets

HEADER = "X-Request-Id"
"""Where clients and proxies say it, and answers repeat it."""

# What tracing systems make is hexadecimal, or a UUID, of 16 to 36 characters.
_sane = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII).fullmatch


def request_id(given: str | None) -> str:
    """What a request is called: as its sender says if that is short and harmless, else a new name.

    Args:
        given: The header `HEADER`, if there is one.
    """
    return given if given is not None and _sane(given) else secrets.token_hex(8)
