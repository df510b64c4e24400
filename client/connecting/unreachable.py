"""Why a broker cannot be reached, in one line that says what to do; and what was raised, for programs."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Iterator

from ..errors import ConnectionFailed
from ..url import Address

# Nobody listens there: on a TCP port, or on a Unix socket.
_NOBODY = (errno.ECONNREFUSED, errno.ENOENT)

# OpenSSL's reasons where the other end sends something else than TLS.
_NOT_TLS = (
    "WRONG_VERSION_NUMBER",
    "RECORD_LAYER_FAILURE",
    "HTTP_REQUEST",
    "UNKNOWN_PROTOCOL",
    "PACKET_LENGTH_TOO_LONG",
)


def no_stream(address: Address, error: Exception) -> ConnectionFailed:
    """Make the error for a byte stream that could not be opened.

    Args:
        address: Where to.
        error: What was raised: an OSError mostly, but a name can be odd, and ``open_stream`` is the caller's.
    """
    causes = list(_causes(error))
    names = [each for each in causes if isinstance(each, socket.gaierror)]
    if names:
        text = f"cannot find the host {address.host!r} of {address}: {names[0].strerror}; is the name right?"
        return ConnectionFailed(text + _proxy_hint(address), cause=names[0])
    reasons = ", ".join(dict.fromkeys(map(_reason, causes)))
    numbers = {each.errno for each in causes if isinstance(each, OSError) and each.errno is not None}
    remedy = (
        "is a broker running? start one with: fanwire serve"
        if not numbers or numbers & {*_NOBODY}
        else "is the address right, and the network up?"
    )
    text = f"cannot reach {address}: {reasons}; {remedy}{_proxy_hint(address)}"
    return ConnectionFailed(text, cause=causes[0])


def _proxy_hint(address: Address) -> str:
    """What to say where the environment names an HTTP proxy, through which other programs would go."""
    from urllib.request import getproxies_environment, proxy_bypass  # 50 ms, for failures only

    if address.unix is not None or proxy_bypass(address.host):
        return ""
    found, wanted = getproxies_environment(), ("https" if address.tls else "http", "all")
    variable = next((f"{scheme}_proxy" for scheme in wanted if scheme in found), None)
    if variable is None:
        return ""
    return f" (the proxy that the environment variable {variable} names is not used; see open_stream=…)"


def no_tls(address: Address, error: BaseException) -> ConnectionFailed:
    """Make the error for a TLS handshake that failed.

    Args:
        address: Where to.
        error: What trio raised; its cause is OpenSSL's error.
    """
    cause = error.__cause__ or error
    if isinstance(cause, ssl.SSLCertVerificationError):
        reason = (
            f"its certificate is not accepted: {cause.verify_message}; say whom to trust with ssl_context=…, or with"
            " the environment variable SSL_CERT_FILE"
        )
    elif isinstance(cause, ssl.SSLError) and cause.reason in _NOT_TLS:
        reason = f"it does not speak TLS ({cause.reason}); without TLS the URL begins with ws://"
    else:
        reason = f"{cause}"
    return ConnectionFailed(f"no TLS with {address}: {reason}", cause=cause)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """What trio has tried, address by address; or the error itself."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _causes(inner)
    elif isinstance(error, OSError) and isinstance(error.__cause__, BaseExceptionGroup | OSError):
        yield from _causes(error.__cause__)
    else:
        yield error


def _reason(cause: BaseException) -> str:
    # trio's text of an OSError repeats the address.
    if isinstance(cause, OSError) and cause.errno is not None and cause.errno in errno.errorcode:
        return os.strerror(cause.errno)
    return str(cause) or type(cause).__name__
