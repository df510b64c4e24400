"""The broker. `Broker` (server) is what one starts; `Config` holds every limit.

The way of a message through the files: `accept` → `handshake` → `session` (one client) → `ingress` (what it says) →
`registry` (who gets it: `patterns`, `routes`) → `fanout` (gather and sweep) → `outbox` (one client's way out). What
becomes of a slow one: `subscription` (what it asked for, what it lost), `limiter` (at its own rate), `line` (what
waits), `policies` (what goes when too much does), `losses` (how it is told), `rules` (what the operator says to that).
Who may come in and do what: `auth` and `auth_file` (the settings), `authenticator`, `jwt_tokens` and `jwt_keys` (whose
token it is: an `identity`), `permissions` (what that allows), `access` (what it means for a session). How one gets
in at all: `listeners`, `unix_socket`, `exposure`; `arrival` (`tls`, `proxy_header`, `proxies`: a `peer`), `origins`.
Beside them: `requests` (what is asked for, one by one), `endings` (how a connection ends), `watchdog` (clocks), `hub`
(what all share), `members`, `watching` and `presence` (who is subscribed), `statistics`, `episodes`, `closed` and
`reports` (what it tells of itself), `log`, `leftovers` (what the libraries would keep), and `process` (for a process
that does nothing else).
"""

from __future__ import annotations

from fanwire.extras import missing_extra

try:
    from .auth import Auth as Auth
    from .auth import AuthCertificate as AuthCertificate
    from .auth import AuthKey as AuthKey
    from .auth import AuthToken as AuthToken
    from .auth_file import read_auth as read_auth
    from .closed import ClosedConnection as ClosedConnection
    from .config import Config as Config
    from .permissions import Role as Role
    from .reports import ConnectionInfo as ConnectionInfo
    from .rules import TopicRule as TopicRule
    from .server import Broker as Broker
    from .statistics import BrokerStatistics as BrokerStatistics
    from .tls import Tls as Tls
except ModuleNotFoundError as error:
    raise missing_extra("fanwire.broker", "broker", error) from error

__all__ = [
    "Auth",
    "AuthCertificate",
    "AuthKey",
    "AuthToken",
    "Broker",
    "BrokerStatistics",
    "ClosedConnection",
    "Config",
    "ConnectionInfo",
    "Role",
    "Tls",
    "TopicRule",
    "read_auth",
]
