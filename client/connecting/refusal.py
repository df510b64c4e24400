"""A handshake that was answered with something else than 101: by the broker, or by a proxy before it."""

from __future__ import annotations

from attrs import frozen

from fanwire.protocol.codes import REFUSAL_HEADER

# Nobody asks us to stay away for longer, in seconds: a broker that says so is wrong.
MOST_HINT_S = 3600.0


@frozen
class Refusal:
    """What the head of the answer says."""

    status: int
    by_broker: bool
    """Whether the broker itself has answered. Proxies answer, too, and mostly mean themselves."""
    retry_after_s: float | None
    """How long to stay away (RFC 9110 section 10.2.3), in seconds, where it is a number."""


def parse_refusal(head: bytes) -> Refusal | None:
    """Read the head of an HTTP response; None if it is none."""
    first, *lines = head.decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    status = rest[:3]
    if not version.startswith("HTTP/") or not (status.isascii() and status.isdigit() and len(status) == 3):
        return None
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    after = headers.get("retry-after", "")
    seconds = min(float(after), MOST_HINT_S) if after.isascii() and after.isdigit() and len(after) < 10 else None
    return Refusal(int(status), REFUSAL_HEADER.lower() in headers, seconds)
