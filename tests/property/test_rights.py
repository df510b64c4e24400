"""Permissions, against every topic of a small alphabet."""

from __future__ import annotations

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from fanwire.broker.auth.permissions import Permissions, Rights, Unusable, rights_of
from fanwire.broker.settings.roles import Role
from fanwire.protocol import matches, pattern_covers, patterns_overlap

few_wild = st.lists(
    st.sampled_from(["a", "b", "$a", "*"]), min_size=0, max_size=3
)  # so that topics may have one token more
# Enough to tell any two of these patterns apart: every token that they have, one that none has, one token more.
_ALPHABET = ("a", "b", "$a", "z")
_TOPICS = [".".join(names) for size in range(1, 6) for names in product(_ALPHABET, repeat=size)]
_ends = st.sampled_from(["a", "b", "$a", "*", ">"])
_patterns = st.builds(lambda path, end: ".".join([*path, end]), few_wild, _ends)


@given(outer=_patterns, inner=_patterns)
def test_a_pattern_covers_another_if_it_matches_all_that_the_other_does(outer: str, inner: str) -> None:
    """Against every topic of a small alphabet; so does overlapping."""
    ours, theirs = ({topic for topic in _TOPICS if matches(pattern, topic)} for pattern in (outer, inner))

    assert pattern_covers(outer, inner) == (theirs <= ours)
    assert patterns_overlap(outer, inner) == bool(ours & theirs)


@given(allowed=st.lists(_patterns, max_size=3), denied=st.lists(_patterns, max_size=2), pattern=_patterns)
def test_nothing_beyond_the_permissions_is_ever_granted(allowed: list[str], denied: list[str], pattern: str) -> None:
    """Of a granted pattern every topic is allowed, and none is denied; a topic is judged exactly."""
    permissions = Permissions(Rights(frozenset(), frozenset(), frozenset(allowed), frozenset(denied)))
    topics = {topic for topic in _TOPICS if any(matches(each, topic) for each in allowed)}
    topics -= {topic for topic in _TOPICS if any(matches(each, topic) for each in denied)}
    wanted = {topic for topic in _TOPICS if matches(pattern, topic)}

    if permissions.may_subscribe(pattern):
        assert wanted <= topics
    for topic in ("a", "a.b", "$a.b", "b.a.z"):
        assert permissions.may_subscribe(topic) == (topic in topics)


@given(claim=st.text(st.characters() | st.sampled_from(".*> \x85\u2028$"), max_size=300))
def test_no_claim_widens_a_template(claim: str) -> None:
    """Whatever is filled in, the pattern has as many tokens as before, and its wildcards where they were."""
    for template in ("user.{sub}.>", "{sub}.x", "a.*.{sub}"):
        try:
            [filled] = rights_of([Role(name="r", subscribe=(template,))], {"sub": claim}).subscribe
        except Unusable:
            continue
        tokens = filled.split(".")
        assert [token if token in ("*", ">") else "." for token in tokens] == [
            token if token in ("*", ">") else "." for token in template.split(".")
        ]
        assert not filled.startswith("$")
