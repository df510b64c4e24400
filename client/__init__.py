"""The client: connect, publish, subscribe.

`client` is what a program holds in its hand; `config` has all settings, `errors` all that can go wrong, `message` what
a program is given. Below stand rooms, each with its purpose and its files in its `__init__`: `connecting` keeps a
connection up and reads it, `publishing` and `exchange` are the way out, `subscribing` the way in; `requesting` asks and
answers, `following` asks for history, presence and demand.
"""

from fanwire.protocol.errors import LocalProtocolError as LocalProtocolError

from .client import Client as Client
from .client import connect as connect
from .config import Options as Options
from .errors import BufferFull as BufferFull
from .errors import Closed as Closed
from .errors import ConnectionFailed as ConnectionFailed
from .errors import ConnectionLost as ConnectionLost
from .errors import FanwireError as FanwireError
from .errors import MessageTooLarge as MessageTooLarge
from .errors import NoResponders as NoResponders
from .errors import Refused as Refused
from .errors import RequestFailed as RequestFailed
from .errors import RequestTimeout as RequestTimeout
from .errors import SlowConsumer as SlowConsumer
from .errors import StaleTopic as StaleTopic
from .errors import Undecodable as Undecodable
from .following.demand import Demand as Demand
from .following.history import History as History
from .following.presence import Member as Member
from .following.presence import PresenceWatch as PresenceWatch
from .message import Message as Message
from .notices import LostMessages as LostMessages
from .notices import Stale as Stale
from .publishing.pipeline import Pipeline as Pipeline
from .publishing.result import PublishResult as PublishResult
from .requesting.replies import Replies as Replies
from .requesting.service import Request as Request
from .requesting.service import Service as Service
from .states import State as State
from .subscribing.granted import Granted as Granted
from .subscribing.granted import LaggingReport as LaggingReport
from .subscribing.subscription import Subscription as Subscription
