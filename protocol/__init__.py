"""What goes over the wire: bytes in, objects out, no I/O, nothing of the rest of the project.

* `codes`: every number and name of the protocol, in tables; `errors`: whose fault something is;
* `topics`: what topics and patterns are, and which match; `fields`, `options`, `envelopes`: what may be said;
* `codec`: envelopes to bytes and back, on `packing` and `unpacking`, which bound what msgpack lets through;
* `frames`, `masking`, `fastpath`: the quick way for whole WebSocket data frames and plain publishes. Their names are
  not repeated here: who uses them imports them from there.
"""

from .codec import Rejected as Rejected
from .codec import decode_from_broker as decode_from_broker
from .codec import decode_from_client as decode_from_client
from .codec import encode as encode
from .codes import CLOSE_CODES as CLOSE_CODES
from .codes import DEFAULT_PORT as DEFAULT_PORT
from .codes import ERROR_CODES as ERROR_CODES
from .codes import LOST_REASONS as LOST_REASONS
from .codes import MAX_BATCH as MAX_BATCH
from .codes import MAX_MAP as MAX_MAP
from .codes import MAX_NESTING as MAX_NESTING
from .codes import MAX_NUMBER as MAX_NUMBER
from .codes import ON_SLOW as ON_SLOW
from .codes import PRESENCE_CHANGES as PRESENCE_CHANGES
from .codes import SUBPROTOCOL as SUBPROTOCOL
from .codes import VERSION as VERSION
from .codes import CloseCode as CloseCode
from .codes import Encoding as Encoding
from .codes import EnvelopeType as EnvelopeType
from .codes import ErrorCode as ErrorCode
from .codes import may_reconnect as may_reconnect
from .envelopes import Backlog as Backlog
from .envelopes import BrokerEnvelope as BrokerEnvelope
from .envelopes import ClientEnvelope as ClientEnvelope
from .envelopes import Error as Error
from .envelopes import Fetch as Fetch
from .envelopes import Goodbye as Goodbye
from .envelopes import Hello as Hello
from .envelopes import Lagging as Lagging
from .envelopes import Lost as Lost
from .envelopes import Message as Message
from .envelopes import Ok as Ok
from .envelopes import Ping as Ping
from .envelopes import Presence as Presence
from .envelopes import PresenceEvent as PresenceEvent
from .envelopes import Publish as Publish
from .envelopes import Quiet as Quiet
from .envelopes import SnapshotEnd as SnapshotEnd
from .envelopes import Subscribe as Subscribe
from .envelopes import Unsubscribe as Unsubscribe
from .envelopes import Welcome as Welcome
from .errors import LocalProtocolError as LocalProtocolError
from .errors import Malformed as Malformed
from .errors import ProtocolError as ProtocolError
from .errors import RemoteProtocolError as RemoteProtocolError
from .options import NO_LIMIT as NO_LIMIT
from .options import PublishOptions as PublishOptions
from .options import Replay as Replay
from .options import SubscribeOptions as SubscribeOptions
from .packing import pack as pack
from .topics import MAX_NAME_BYTES as MAX_NAME_BYTES
from .topics import check_pattern as check_pattern
from .topics import check_topic as check_topic
from .topics import foreign_wildcards as foreign_wildcards
from .topics import is_wildcard as is_wildcard
from .topics import matcher as matcher
from .topics import matches as matches
from .topics import pattern_covers as pattern_covers
from .topics import patterns_overlap as patterns_overlap
from .topics import split as split
from .unpacking import MAX_MIXED_MAP as MAX_MIXED_MAP
from .unpacking import MAX_NUMBERED_ENTRIES as MAX_NUMBERED_ENTRIES
from .unpacking import unpack as unpack
from .unpacking import unpack_data as unpack_data
