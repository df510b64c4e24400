"""The broker. `Broker` (server) is what one starts; `Config` (settings) holds every limit.

Each folder is a room with one purpose: its own words, and its files in reading order, stand in its `__init__`. The way
of a message: `network` (a connection is accepted, its request read) → `sessions` (one client, and what it says) →
`topics` (who gets it) → `delivery` (gather and sweep; wait in line; what becomes of who is slow). Beside it: `options`
(what a SUBSCRIBE may ask for), `store` (what topics remember), `presence`, `auth`, `limits`, `http`, `operations`.
"""

from __future__ import annotations

from fanwire.extras import missing_extra

try:
    from .operations.reports import ConnectionInfo as ConnectionInfo
    from .server.broker import Broker as Broker
    from .settings.auth import Auth as Auth
    from .settings.auth import AuthCertificate as AuthCertificate
    from .settings.auth import AuthKey as AuthKey
    from .settings.auth import AuthToken as AuthToken
    from .settings.auth_file import read_auth as read_auth
    from .settings.config import Config as Config
    from .settings.roles import Role as Role
    from .settings.rules import TopicRule as TopicRule
    from .settings.tls import Tls as Tls
    from .telemetry.closed import ClosedConnection as ClosedConnection
    from .telemetry.statistics import BrokerStatistics as BrokerStatistics
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
