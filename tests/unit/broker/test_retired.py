"""Large dicts are freed a little at a time, and what waits to be freed stays bounded."""

from fanwire.broker.delivery.routes import Registry
from fanwire.broker.topics.deferred_free import PORTION, Retired


def test_a_few_entries_at_a_time() -> None:
    """Until all are gone; nothing happens where there is nothing."""
    retired = Retired()
    retired.free_some()
    retired.add({})
    assert not retired
    retired.add(dict.fromkeys(range(PORTION)))
    retired.add(dict.fromkeys(range(PORTION + 1)))
    left = []
    while retired:
        retired.free_some()
        left.append(len(retired))

    assert left == [PORTION + 1, 1, 0]


def test_what_a_registry_has_retired_is_less_than_what_it_remembers() -> None:
    """However often its wildcard patterns change, and it has to begin anew."""
    registry = Registry()
    for number in range(2000):
        packed = b"\xa5t" + b"%04d" % number
        registry.heads[packed] = (registry.topic(packed), False)
        if number % 100 == 99:
            registry.release(registry.route("t.*"))

        assert len(registry._retired) <= 200
