"""The client: connect, publish, subscribe.

* `client`: what a program holds in its hand; `link` keeps its connection up (`reconnect`: when to try again,
  `states`: how it is, `outages`: what the log says); `connection`: one WebSocket, from opening to closing (`url`: where
  to, `refusal`: what was answered instead);
* out: `publisher` (encoding), `outgoing` (the buffer and its writer), `pipeline` (acknowledged, a window at a time),
  `publish_result`, `requests` (who waits for which answer);
* in: `decoding` (bytes to lists), `receiver` (lists to whom they concern), `feeds` and `feed` (patterns on the wire),
  `position` (how far one has come, and how it goes on after a break), `terms` (what the broker grants) and `slowness`
  (why it ends one), `subscription` (a handler's end), `buffer`, `buffering` and `marks` (what waits for it), `message`,
  `history` (without subscribing), `silence` (when nothing comes), `demand` (who wants what),
  `presence` (who is subscribed), `weight` (what a waiting message costs), `answers` (what a broker may say);
* both: `requester`, `replies` and `deadlines` (asking), `inbox` (where replies come in), `service` (answering);
* `config`: all settings; `errors`: all that can go wrong; `checks`: whether an argument is what it must be; `home`: the
  thread that a client belongs to.
"""

from fanwire.protocol.errors import LocalProtocolError as LocalProtocolError

from .client import Client as Client
from .client import connect as connect
from .config import Options as Options
from .demand import Demand as Demand
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
from .history import History as History
from .message import LostMessages as LostMessages
from .message import Message as Message
from .message import Stale as Stale
from .pipeline import Pipeline as Pipeline
from .presence import Member as Member
from .presence import PresenceWatch as PresenceWatch
from .publish_result import PublishResult as PublishResult
from .replies import Replies as Replies
from .service import Request as Request
from .service import Service as Service
from .states import State as State
from .subscription import Subscription as Subscription
from .terms import Granted as Granted
from .terms import LaggingReport as LaggingReport
