"""Ends with 0 if the broker in the same container answers: for HEALTHCHECK. It needs nothing but Python.

It asks for /healthz on the port of FANWIRE_PORT, over TLS if FANWIRE_TLS_CERT is set; HEALTHCHECK_URL says otherwise.
Whether the certificate is good is not its business: that names the broker as clients know it, not this address.
"""

import os
import ssl
import sys
import urllib.request
from collections.abc import Mapping

TIMEOUT_S = 3


def url_of(environment: Mapping[str, str]) -> str:
    """What to ask for."""
    scheme = "https" if environment.get("FANWIRE_TLS_CERT") else "http"
    return environment.get("HEALTHCHECK_URL") or f"{scheme}://127.0.0.1:{environment.get('FANWIRE_PORT', 9473)}/healthz"


def main(environment: Mapping[str, str] = os.environ) -> int:
    """Ask; 0: it answered 200."""
    url = url_of(environment)
    ours = urllib.request.HTTPSHandler(context=ssl._create_unverified_context())
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), ours)
    try:
        with opener.open(url, timeout=TIMEOUT_S) as answer:
            status: int = answer.status
    except (OSError, ValueError) as error:
        print(f"{url}: {error}")
        return 1
    return 0 if status == 200 else 1


if __name__ == "__main__":
    sys.exit(main())
