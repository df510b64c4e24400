"""Names of topics and patterns, against a plain reading of the rules."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from fanwire.protocol import LocalProtocolError, check_pattern, check_topic, matcher, matches, pattern_covers

tokens = st.text(st.characters(exclude_characters=".*>", exclude_categories=["Cc", "Cs", "Zs", "Zl", "Zp"]), min_size=1)
topics = st.lists(tokens, min_size=1, max_size=5).map(".".join).filter(lambda name: len(name.encode()) <= 255)
few = st.lists(st.sampled_from(["a", "b", "$a"]), min_size=1, max_size=4)
few_wild = st.lists(st.sampled_from(["a", "b", "$a", "*"]), min_size=0, max_size=4)


def _checked(check: Callable[[str], str], name: str) -> object:
    try:
        return check(name)
    except LocalProtocolError as error:
        return error.code


@given(name=st.text(st.characters() | st.sampled_from(".*> \x85\xa0\u2028$"), max_size=260))
def test_names_are_checked_as_documented(name: str) -> None:
    """Topics and patterns are what a plain reading of the rules says, character by character."""
    assert (_checked(check_topic, name), _checked(check_pattern, name)) == (
        name if _plainly(name, pattern=False) else "bad_topic",
        name if _plainly(name, pattern=True) else "bad_pattern",
    )


def _plainly(name: str, pattern: bool) -> bool:
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return False
    tokens = name.split(".")
    for number, token in enumerate(tokens, 1):
        wild = token == "*" or (token == ">" and number == len(tokens))
        if not token or (set(token) & {"*", ">"} and not (pattern and wild)):
            return False
    blank = any(unicodedata.category(each) in ("Cc", "Zs", "Zl", "Zp") or each.isspace() for each in name)
    return 1 <= size <= 255 and not blank


@given(topic=topics)
def test_a_topic_is_matched_by_itself_and_by_its_wildcards(topic: str) -> None:
    """Itself, `*` for every token but a first one with `$`, and `>` for any tail of one token or more."""
    tokens = topic.split(".")
    for index in range(len(tokens)):
        wild = index > 0 or not topic.startswith("$")
        assert matches(".".join([*tokens[:index], "*", *tokens[index + 1 :]]), topic) == wild
        assert matches(".".join([*tokens[:index], ">"]), topic) == wild
    assert matches(topic, topic)
    assert not matches(f"{topic}.>", topic)


@given(tokens=few, wanted=few_wild, rest=st.booleans())
def test_matching_is_what_the_rules_say(tokens: list[str], wanted: list[str], rest: bool) -> None:
    """Token by token: `*` is any one, `>` one or more, and neither is a first one that begins with `$`."""
    pattern = [*wanted, ">"] if rest or not wanted else wanted

    assert matches(".".join(pattern), ".".join(tokens)) == _plainly_matches(pattern, tokens, first=True)


def _plainly_matches(pattern: list[str], tokens: list[str], first: bool) -> bool:
    if not pattern or not tokens:
        return pattern == tokens
    hidden = first and tokens[0].startswith("$")
    if pattern[0] == ">":
        return not hidden
    here = not hidden if pattern[0] == "*" else pattern[0] == tokens[0]
    return here and _plainly_matches(pattern[1:], tokens[1:], first=False)


any_pattern = st.tuples(few_wild, st.booleans()).filter(any).map(lambda made: ".".join([*made[0], *[">"] * made[1]]))


@given(pattern=any_pattern, topic=few.map(".".join))
def test_a_matcher_agrees(pattern: str, topic: str) -> None:
    """Whatever way it takes."""
    assert matcher(pattern)(topic) is matches(pattern, topic)


@given(wide=any_pattern, narrow=any_pattern, topic=few.map(".".join))
def test_a_pattern_that_covers_another_matches_all_that_it_does(wide: str, narrow: str, topic: str) -> None:
    """Where it does not cover it there is a topic that says so."""
    strange = [narrow.replace("*", "strange").replace(">", each) for each in ("strange", "strange.er")]
    if pattern_covers(wide, narrow):
        assert all(matches(wide, each) or not matches(narrow, each) for each in (topic, *strange))
    else:
        assert any(matches(narrow, each) and not matches(wide, each) for each in strange)
