"""The tree of patterns, against the reference semantics of `fanwire.protocol.matches`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fanwire.broker.topics.pattern_tree import PatternTree
from fanwire.protocol import matches

# Few names, so that patterns and topics meet; `$` where it is special (first) and where it is not. Paths of up to seven
# tokens, so that labels are parted and joined in many places.
tokens = st.sampled_from(["a", "a", "b", "$a", "$sys"])
topics = st.lists(tokens, min_size=1, max_size=7).map(".".join)


@st.composite
def patterns(draw: st.DrawFn) -> str:
    """A pattern with at least one wildcard."""
    parts = draw(st.lists(tokens | st.just("*"), max_size=6))
    if draw(st.booleans()) or "*" not in parts:
        parts.append(">")
    return ".".join(parts)


def _tree(of: set[str]) -> PatternTree[str]:
    tree: PatternTree[str] = PatternTree()
    for pattern in of:
        tree.add(pattern, pattern)
    return tree


def _is_empty(tree: PatternTree[str]) -> bool:
    root = tree._root
    return not root.children and root.here is None and root.rest is None


@given(st.sets(patterns(), max_size=12), topics)
def test_the_tree_matches_what_the_reference_matches(held: set[str], topic: str) -> None:
    """Every pattern that matches is found once, and no other; also where a first token begins with `$`."""
    assert sorted(_tree(held).match(topic)) == sorted(pattern for pattern in held if matches(pattern, topic))


@given(st.sets(patterns(), max_size=12), st.data(), topics)
def test_a_removed_pattern_leaves_the_others(held: set[str], data: st.DataObject, topic: str) -> None:
    """After some were removed, the tree is as if they had never been there."""
    gone = data.draw(st.sets(st.sampled_from(sorted(held)))) if held else set()
    tree = _tree(held)
    for pattern in sorted(gone):
        tree.remove(pattern)

    assert sorted(tree.match(topic)) == sorted(_tree(held - gone).match(topic))


@given(st.lists(patterns(), max_size=12, unique=True), st.randoms())
def test_removing_all_leaves_nothing_behind(held: list[str], order: object) -> None:
    """In whatever order patterns go, no branch stays: patterns that come and go cost nothing."""
    tree = _tree(set(held))
    order.shuffle(held)  # type: ignore[attr-defined]
    for pattern in held:
        tree.remove(pattern)

    assert _is_empty(tree)


def test_wildcards_do_not_match_the_brokers_own_topics() -> None:
    """`*` and `>` never stand for a first token that begins with `$`; later ones are tokens like any other."""
    tree = _tree({">", "*.stats", "$sys.>", "$sys.*", "a.*"})

    assert sorted(tree.match("$sys.stats")) == ["$sys.*", "$sys.>"]
    assert sorted(tree.match("a.$b")) == [">", "a.*"]


class _Counted(dict[str, object]):
    """Branches of a node that count how often they are looked at."""

    looked = 0

    def get(self, key: str, default: object = None) -> object:
        _Counted.looked += 1
        return super().get(key, default)


def _looks(tree: PatternTree[str], topic: str) -> int:
    nodes = [tree._root]
    for node in nodes:
        if node.children is not None:
            nodes.extend(node.children.values())
            node.children = _Counted(node.children)  # type: ignore[assignment]
    _Counted.looked = 0
    tree.match(topic)
    return _Counted.looked


def test_the_cost_does_not_grow_with_unrelated_patterns() -> None:
    """Matching takes as many look-ups among 2,000 patterns of others as among none, and some at all."""
    related = {"a.*.c", "a.>", "*.b.*"}
    unrelated = {f"other{number}.*.{end}" for number in range(1000) for end in ("x", ">")}

    alone, among = _looks(_tree(related), "a.b.c"), _looks(_tree(related | unrelated), "a.b.c")

    assert 0 < alone == among


def _nodes(tree: PatternTree[str]) -> int:
    nodes = [tree._root]
    for node in nodes:
        nodes.extend((node.children or {}).values())
    return len(nodes)


@given(st.sets(patterns(), max_size=12), st.data())
def test_the_tree_has_two_nodes_for_each_pattern_at_most(held: set[str], data: st.DataObject) -> None:
    """Memory goes by patterns, not by their tokens; after some were removed, too."""
    tree = _tree(held)
    assert _nodes(tree) <= 2 * len(held) + 1

    gone = data.draw(st.sets(st.sampled_from(sorted(held)))) if held else set()
    for pattern in sorted(gone):
        tree.remove(pattern)
    assert _nodes(tree) <= 2 * len(held - gone) + 1


def test_matching_a_deep_topic_looks_at_each_pattern_twice_at_most() -> None:
    """A thousand patterns that part at each of their first ten tokens, and never meet again for a hundred more."""
    first = [["*" if number >> bit & 1 else "a" for bit in range(10)] for number in range(1000)]
    tree = _tree({".".join([*each, *["a"] * 100, "no"]) for each in first})

    assert 0 < _looks(tree, ".".join(["a"] * 111)) <= 4 * 1000


def test_a_pattern_is_matched_across_the_whole_of_a_long_label() -> None:
    """A label is compared token by token: neither a longer token nor a shorter path passes for it."""
    tree = _tree({"a.*.c.d.e", "a.b.>", "x.bb.c.>"})

    assert tree.match("a.q.c.d.e") == ["a.*.c.d.e"]
    assert tree.match("a.q.c.d.f") == tree.match("a.q.c.d") == tree.match("a.q.c.d.e.f") == []
    assert tree.match("x.bb.c.d") == ["x.bb.c.>"]
    assert tree.match("x.bb.cc.d") == tree.match("x.b.bc.d") == tree.match("x.bb.c") == []
