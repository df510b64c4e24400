"""What the operator's rules grant, cap and force."""

from __future__ import annotations

from typing import Any

import pytest

from fanwire.broker.settings.rules import Grant, TopicRule, grant, presence_on, publisher_wait
from fanwire.protocol import NO_LIMIT, LocalProtocolError, SubscribeOptions


def _grant(rules: list[TopicRule], pattern: str = "a.b", user: str = "", **wanted: Any) -> Grant:
    return grant(tuple(rules), pattern, user, SubscribeOptions(**wanted), queue=1_000, max_queue=5_000, queue_grace=5.0)


def test_without_rules() -> None:
    """One gets what one asks for, up to the broker's most; its default, after a grace, for who asks for nothing."""
    assert _grant([]) == Grant(1_000, None, "disconnect", 5.0)
    assert _grant([], queue=7, on_slow="drop_oldest") == Grant(7, None, "drop_oldest")
    assert _grant([], queue=6_000) == Grant(5_000, None, "disconnect")


@pytest.mark.parametrize("on_slow", ["disconnect", "unsubscribe", "drop_oldest", "drop_newest", "conflate"])
def test_a_rate_implies_conflation(on_slow: str) -> None:
    """Whoever sets it, and whatever policy is asked for or forced."""
    assert _grant([], max_rate=2.0, on_slow=on_slow) == Grant(1_000, 2.0, "conflate", 5.0)
    assert _grant([TopicRule(pattern=">", max_rate=3.0)], on_slow=on_slow) == Grant(1_000, 3.0, "conflate", 5.0)
    assert _grant([TopicRule(pattern=">", on_slow=on_slow)], max_rate=2.0).on_slow == "conflate"


def test_caps() -> None:
    """A ceiling lowers what is over it and leaves what is under it."""
    rules = [TopicRule(pattern="a.>", max_queue=100, max_rate=10.0)]

    assert _grant(rules, queue=500, max_rate=50.0) == Grant(100, 10.0, "conflate")
    assert _grant(rules, queue=50, max_rate=5.0) == Grant(50, 5.0, "conflate")
    assert _grant(rules) == Grant(100, 10.0, "conflate")


def test_a_rule_cannot_raise_the_brokers_most() -> None:
    """`max_queue` of a rule is one ceiling more."""
    assert _grant([TopicRule(pattern=">", max_queue=50_000)], queue=20_000).queue == 5_000
    assert _grant([TopicRule(pattern=">", max_queue=50_000)]).queue == 1_000


@pytest.mark.parametrize(
    ("rules", "wanted", "expected"),
    [
        ([], {}, (1_000, 5.0)),
        ([], {"queue": NO_LIMIT}, (5_000, 5.0)),
        ([TopicRule(pattern=">", max_rate=1.0)], {}, (1_000, 5.0)),
        ([], {"queue": 1_000}, (1_000, None)),
        ([], {"queue": 90_000}, (5_000, None)),
        ([TopicRule(pattern="a.>", max_queue=50)], {}, (50, None)),
        ([TopicRule(pattern="a.>", max_queue=2_000)], {}, (1_000, None)),
        ([TopicRule(pattern="a.>", max_queue=50)], {"queue": NO_LIMIT}, (50, None)),
        ([TopicRule(pattern="b", max_queue=50)], {}, (1_000, 5.0)),
    ],
)
def test_what_somebody_asked_for_counts_at_once(
    rules: list[TopicRule], wanted: dict[str, Any], expected: tuple[int, float | None]
) -> None:
    """A queue that the subscriber or an operator's rule has chosen is exact; only the default has a grace."""
    given = _grant(rules, **wanted)

    assert (given.queue, given.queue_grace) == expected


@pytest.mark.parametrize(("grace", "most"), [(None, 5_000), (5.0, 500)])
def test_an_operator_can_have_the_default_count_at_once(grace: float | None, most: int) -> None:
    """Without a grace; or with a ceiling below the default."""
    given = grant((), "a", "", SubscribeOptions(), queue=1_000, max_queue=most, queue_grace=grace)

    assert given == Grant(min(1_000, most), None, "disconnect")


def test_the_strictest_cap_counts_and_the_first_policy() -> None:
    """Rules add up; their order matters only for what is forced."""
    rules = [
        TopicRule(pattern="a.*", max_queue=300, max_rate=7.0),
        TopicRule(pattern="a.b", max_queue=200),
        TopicRule(pattern=">", max_queue=400, max_rate=5.0),
    ]
    assert _grant(rules) == _grant(rules[::-1]) == Grant(200, 5.0, "conflate")
    first, second = TopicRule(pattern="a.>", on_slow="drop_oldest"), TopicRule(pattern=">", on_slow="unsubscribe")

    assert _grant([first, second], on_slow="disconnect").on_slow == "drop_oldest"
    assert _grant([second, first], on_slow="disconnect").on_slow == "unsubscribe"


@pytest.mark.parametrize(
    ("pattern", "concerned"),
    [
        ("stocks.a", True),
        ("stocks.>", True),
        (">", True),
        ("*.a", True),
        ("*", False),
        ("stocks", False),
        ("bonds.a", False),
        ("$sys.a", False),
    ],
)
def test_whom_a_rule_concerns(pattern: str, concerned: bool) -> None:
    """Every subscription that could get one of its topics: no wildcard gets round it."""
    granted = _grant([TopicRule(pattern="stocks.*", max_queue=10)], pattern)

    assert granted.queue == (10 if concerned else 1_000)


@pytest.mark.parametrize(
    ("glob", "name", "concerned"),
    [
        (None, "", True),
        ("legacy-*", "legacy-7", True),
        ("legacy-*", "Legacy-7", False),
        ("legacy-*", "", False),
        ("*", "", True),
        ("a[12]", "a2", True),
        ("a[12]", "a3", False),
    ],
)
def test_whose_subscriptions_a_rule_concerns(glob: str | None, name: str, concerned: bool) -> None:
    """`user` is a shell pattern, and upper case is not lower case."""
    granted = _grant([TopicRule(pattern=">", user=glob, on_slow="conflate")], user=name)

    assert granted.on_slow == ("conflate" if concerned else "disconnect")


def test_how_long_publishers_wait() -> None:
    """The first rule for the topic that says something about it; none: not at all."""
    rules = (
        TopicRule(pattern="a.>", max_queue=1),
        TopicRule(pattern="a.b", publisher_wait_s=2.0),
        TopicRule(pattern="a.*", publisher_wait_s=1.0),
    )

    assert [publisher_wait(rules, topic) for topic in ("a.b", "a.c", "a.b.c", "a", "b.b")] == [
        2.0,
        1.0,
        None,
        None,
        None,
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        {"on_slow": "drop"},
        {"max_queue": 0},
        {"max_rate": 0.0},
        {"max_rate": -1.0},
        {"max_rate": float("nan")},
        {"publisher_wait_s": 0.0},
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    """When the configuration is read, and with the value in the message."""
    with pytest.raises(ValueError, match=str(next(iter(wrong.values())))):
        TopicRule(pattern="a", **wrong)


def test_a_rule_needs_a_pattern() -> None:
    """One that is none is refused as in SUBSCRIBE."""
    with pytest.raises(LocalProtocolError):
        TopicRule(pattern="a..b")


def test_presence_is_as_the_first_rule_says_that_speaks_of_it() -> None:
    """Of any topic that the pattern could match; without one it is off, and it is for the broker's own topics."""
    rules = (
        TopicRule(pattern="a.secret", presence=False),
        TopicRule(pattern="a.b", max_rate=1.0),
        TopicRule(pattern="a.>", presence=True),
        TopicRule(pattern="$sys.>", presence=True),
    )

    on = [
        p for p in ("a.b", "a.b.>", "a.*.c", "a.secret", "a.*", "a.>", ">", "b", "$sys.stats") if presence_on(rules, p)
    ]
    assert on == ["a.b", "a.b.>", "a.*.c"]
    assert not presence_on((), "a.b")
