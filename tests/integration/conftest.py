"""Fixtures of the integration tests: those that `fanwire.testing` ships."""

from fanwire.testing import fanwire_broker as fanwire_broker
from fanwire.testing import fanwire_client as fanwire_client
