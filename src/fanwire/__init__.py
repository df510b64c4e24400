"""Fanwire: a WebSocket publish/subscribe broker and its client, on trio.

Four packages, each of which imports only what stands below it:

* `fanwire.client`, the SDK, and `fanwire.broker`, the server; neither imports the other;
* `fanwire.transport`, the stream that both put under trio-websocket;
* `fanwire.protocol`, what goes over the wire, without any I/O.

Each name is loaded when it is first used: the command line must listen for signals before it loads what is slow, and
`Broker` and `Config` need the packages of the extra `fanwire[broker]`.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

from fanwire.version import __version__ as __version__

from .extras import missing_extra as _missing_extra

if TYPE_CHECKING:
    from fanwire.broker import Broker as Broker
    from fanwire.broker import Config as Config
    from fanwire.client import BufferFull as BufferFull
    from fanwire.client import Client as Client
    from fanwire.client import Closed as Closed
    from fanwire.client import ConnectionFailed as ConnectionFailed
    from fanwire.client import ConnectionLost as ConnectionLost
    from fanwire.client import Demand as Demand
    from fanwire.client import FanwireError as FanwireError
    from fanwire.client import Granted as Granted
    from fanwire.client import History as History
    from fanwire.client import LaggingReport as LaggingReport
    from fanwire.client import LocalProtocolError as LocalProtocolError
    from fanwire.client import LostMessages as LostMessages
    from fanwire.client import Member as Member
    from fanwire.client import Message as Message
    from fanwire.client import MessageTooLarge as MessageTooLarge
    from fanwire.client import NoResponders as NoResponders
    from fanwire.client import Options as Options
    from fanwire.client import Pipeline as Pipeline
    from fanwire.client import PresenceWatch as PresenceWatch
    from fanwire.client import PublishResult as PublishResult
    from fanwire.client import Refused as Refused
    from fanwire.client import Replies as Replies
    from fanwire.client import Request as Request
    from fanwire.client import RequestFailed as RequestFailed
    from fanwire.client import RequestTimeout as RequestTimeout
    from fanwire.client import Service as Service
    from fanwire.client import SlowConsumer as SlowConsumer
    from fanwire.client import Stale as Stale
    from fanwire.client import StaleTopic as StaleTopic
    from fanwire.client import State as State
    from fanwire.client import Subscription as Subscription
    from fanwire.client import Undecodable as Undecodable
    from fanwire.client import connect as connect


__all__ = [
    "Broker",
    "BufferFull",
    "Client",
    "Closed",
    "Config",
    "ConnectionFailed",
    "ConnectionLost",
    "Demand",
    "FanwireError",
    "Granted",
    "History",
    "LaggingReport",
    "LocalProtocolError",
    "LostMessages",
    "Member",
    "Message",
    "MessageTooLarge",
    "NoResponders",
    "Options",
    "Pipeline",
    "PresenceWatch",
    "PublishResult",
    "Refused",
    "Replies",
    "Request",
    "RequestFailed",
    "RequestTimeout",
    "Service",
    "SlowConsumer",
    "Stale",
    "StaleTopic",
    "State",
    "Subscription",
    "Undecodable",
    "__version__",
    "connect",
]

_OF_BROKER = frozenset({"Broker", "Config"})
_PACKAGES = frozenset({"broker", "client", "protocol", "transport"})


def __getattr__(name: str) -> object:
    """Load a name when it is first used (PEP 562)."""
    if name in _PACKAGES:
        return _import_module(f"fanwire.{name}")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name not in _OF_BROKER:
        return globals().setdefault(name, getattr(_import_module("fanwire.client"), name))
    try:
        broker = _import_module("fanwire.broker")
    except ModuleNotFoundError as error:
        raise _missing_extra(f"fanwire.{name}", "broker", error) from error
    return globals().setdefault(name, getattr(broker, name))


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
