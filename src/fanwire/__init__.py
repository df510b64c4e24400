"""Fanwire: a WebSocket publish/subscribe broker and its client, on trio.

Four packages, each of which imports only what stands below it:

* `fanwire.client`, the SDK, and `fanwire.broker`, the server; neither imports the other;
* `fanwire.transport`, the stream that both put under trio-websocket;
* `fanwire.protocol`, what goes over the wire, without any I/O.

The client's names are here as soon as `fanwire` is imported. `Broker` and `Config` are loaded when they are first
asked for, because they need the packages of the extra `fanwire[broker]`.
"""

from typing import TYPE_CHECKING

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
from fanwire.version import __version__ as __version__

if TYPE_CHECKING:
    from fanwire.broker import Broker as Broker
    from fanwire.broker import Config as Config


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


def __getattr__(name: str) -> object:
    """Load the broker when it is first asked for (PEP 562)."""
    if name not in _OF_BROKER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        import fanwire.broker as broker
    except ModuleNotFoundError as error:
        raise _missing_extra(name, error) from error
    return globals().setdefault(name, getattr(broker, name))


def _missing_extra(name: str, error: ModuleNotFoundError) -> ImportError:
    """What to tell someone who has the client only. A module of our own that is missing is a defect and stays one."""
    if error.name is None or error.name.partition(".")[0] == "fanwire":
        return error
    return ImportError(
        f"fanwire.{name} needs the package {error.name!r}: pip install 'fanwire[broker]'", name=error.name
    )


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
