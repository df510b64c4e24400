"""How often taking messages, or sending them, gives other tasks their turn.

A checkpoint costs 2.7 us, several times what taking a message does. So iterating passes one every so many messages or
so many seconds, whichever comes first.
"""

from __future__ import annotations

MESSAGES_A_CHECKPOINT = 64
SECONDS_A_CHECKPOINT = 0.001
