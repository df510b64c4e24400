"""Option maps: what they may hold, and what is said about the rest."""

from __future__ import annotations

from typing import Any

import pytest

from fanwire.protocol import NO_LIMIT, ON_SLOW, LocalProtocolError, PublishOptions, Replay, Subscribe, SubscribeOptions


@pytest.mark.parametrize(
    ("options", "name", "message"),
    [
        ({"que": 5}, "que", "SUBSCRIBE has no option 'que'; did you mean 'queue'?"),
        ({"on-slow": "x"}, "on-slow", "SUBSCRIBE has no option 'on-slow'; did you mean 'on_slow'?"),
        ({"queue": 0}, "queue", "option 'queue' is 0; it must be an integer from 1 on"),
        ({"queue": True}, "queue", "option 'queue' is True; it must be an integer from 1 on"),
        ({"max_rate": 0}, "max_rate", "option 'max_rate' is 0; it must be a number from 0.001 to 1,000,000"),
        ({"echo": 1}, "echo", "option 'echo' is 1; it must be true or false"),
        (
            {"on_slow": "drop"},
            "on_slow",
            f"option 'on_slow' is 'drop'; it must be one of {', '.join(map(repr, ON_SLOW))}",
        ),
        ({"replay": {"lst": 5}}, "lst", "option 'replay' has no option 'lst'; did you mean 'last'?"),
        ({"replay": {}}, "replay", "option 'replay' must have one of last, since, offset and offsets"),
        (
            {"replay": {"offset": 1}},
            "replay",
            "option 'replay' must have an epoch with offset or offsets, and only then",
        ),
        (
            {"replay": {"last": 1}, "group": "g"},
            "replay",
            "option 'replay' cannot be had with 'group': its members share one stream",
        ),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], name: str, message: str) -> None:
    """The error names the option, its value and what would be right."""
    with pytest.raises(LocalProtocolError) as caught:
        SubscribeOptions.from_map(options)

    assert (caught.value.code, caught.value.option, str(caught.value)) == ("bad_option", name, message)


def test_an_unknown_option_like_none_lists_those_there_are() -> None:
    """Where nothing is near, all are named."""
    with pytest.raises(LocalProtocolError) as caught:
        PublishOptions.from_map({"zzzz": 1})

    assert str(caught.value) == "PUBLISH has no option 'zzzz'; it has headers, key, reply_to, retain, msg_id, expect"


def test_an_unknown_option_of_a_megabyte_costs_little() -> None:
    """Neither the search for a near name nor the message grows with what a peer sent."""
    with pytest.raises(LocalProtocolError) as caught:
        SubscribeOptions.from_map({"queue" * 200_000: 1})

    assert len(str(caught.value)) < 300
    assert len(caught.value.option or "") <= 64


def test_defaults_are_left_out() -> None:
    """What is as it would be anyway is not said."""
    assert SubscribeOptions().to_map() == {}
    assert PublishOptions().to_map() == {}
    assert SubscribeOptions(queue=5, echo=True).to_map() == {"queue": 5}


def test_nil_is_no_limit_and_absence_the_brokers_default() -> None:
    """`queue` nil asks for as much as the broker grants; not saying it leaves the choice to the broker."""
    assert SubscribeOptions.from_map({"queue": None}).queue == NO_LIMIT
    assert SubscribeOptions(queue=NO_LIMIT).to_map() == {"queue": None}
    assert SubscribeOptions.from_map({}).queue is None


def test_options_stand_in_the_documented_order() -> None:
    """However they were given: there is one canonical form."""
    options = SubscribeOptions.from_map({"presence": True, "replay": {"last": 1}, "queue": 1, "on_slow": "conflate"})

    assert list(options.to_map()) == ["on_slow", "queue", "replay", "presence"]


def test_replay_is_read_from_a_map() -> None:
    """In Python as on the wire."""
    assert SubscribeOptions(replay={"since": 1_700_000_000_000_000}).replay == Replay(since=1_700_000_000_000_000)


def test_one_offset_does_not_do_for_a_wildcard() -> None:
    """Its topics have an offset each."""
    options = SubscribeOptions(replay=Replay(offset=5, epoch="e"))

    assert Subscribe(1, "a.b", options).options is options
    with pytest.raises(LocalProtocolError, match="replay from offsets"):
        Subscribe(1, "a.*", options)


def test_bytes_of_a_retained_flag() -> None:
    """Not retaining is a wish too, and differs from having none."""
    assert PublishOptions(retain=False).to_map() == {"retain": False}
