"""Fixtures of the client's tests."""

import pytest
import trio

from tests.unit.client.scripted_peer import ScriptedPeer


@pytest.fixture
def peer(nursery: trio.Nursery) -> ScriptedPeer:
    """A peer that does what the test says."""
    return ScriptedPeer(nursery)
