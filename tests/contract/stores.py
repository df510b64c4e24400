"""The implementations of `Store`. A new one is added here, and has to pass all of this folder."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from fanwire.broker.store.interface import Store
from fanwire.broker.store.memory import MemoryStore

Open: TypeAlias = Callable[[str, int, int], Store]
"""Opens an empty store: its epoch, the bytes of all topics together, the number of topics."""

STORES: dict[str, Open] = {"memory": MemoryStore}
