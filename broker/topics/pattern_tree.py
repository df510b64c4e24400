"""The tree of wildcard patterns: which of them match a topic, at a cost that does not grow with those that don't.

A pattern is a path of tokens; ``*`` is a branch of its own, ``>`` ends at the node above it. To match a topic, walk its
tokens and follow at each node the branch of that name and the ``*`` branch: what lies elsewhere is never looked at.

Tokens that follow each other without a branch are one node: its label. So there are at most two nodes for each pattern,
however many tokens the pattern has. That bounds the memory of a pattern, and the work of a match, which visits each
node once at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Generic, TypeVar

from fanwire.protocol.reserved import RESERVED

T = TypeVar("T")


class _Node(Generic[T]):
    __slots__ = ("children", "here", "label", "literal", "rest", "width")

    def __init__(self, label: str) -> None:
        self.children: dict[str, _Node[T]] | None = None  # by the first token of their labels
        self.here: T | None = None  # the pattern that ends here
        self.rest: T | None = None  # the pattern that ends here in ">"
        self.rename(label)

    def rename(self, label: str) -> None:
        self.label = label  # tokens, joined by dots; the root has none
        self.width = label.count(".") + 1 if label else 0
        self.literal = "*" not in label

    @property
    def empty(self) -> bool:
        return not self.children and self.here is None and self.rest is None


class PatternTree(Generic[T]):
    """Maps wildcard patterns to values. Not re-entrant; a pure data structure."""

    def __init__(self) -> None:
        self._root: _Node[T] = _Node("")

    def add(self, pattern: str, value: T) -> None:
        """Set the value of a (valid) pattern."""
        tokens, ends_open = _path(pattern)
        node = self._make(tokens)
        if ends_open:
            node.rest = value
        else:
            node.here = value

    def _make(self, tokens: list[str]) -> _Node[T]:
        """The node at the end of a path, made if there is none."""
        node, at = self._root, 0
        while at < len(tokens):
            if node.children is None:
                node.children = {}
            child = node.children.get(tokens[at])
            if child is None:
                child = node.children[tokens[at]] = _Node(".".join(tokens[at:]))
            elif (shared := _shared(child.label.split("."), tokens, at)) < child.width:
                child = node.children[tokens[at]] = _parted(child, shared)
            node, at = child, at + child.width
        return node

    def remove(self, pattern: str) -> None:
        """Forget a pattern that was added, and the branches that it leaves empty."""
        tokens, ends_open = _path(pattern)
        path, at = [self._root], 0
        while at < len(tokens):
            children = path[-1].children
            assert children is not None
            path.append(children[tokens[at]])
            at += path[-1].width
        if ends_open:
            path[-1].rest = None
        else:
            path[-1].here = None
        if len(path) > 1 and path[-1].empty:
            node = path.pop()
            assert path[-1].children is not None
            del path[-1].children[tokens[at - node.width]]
        if len(path) > 1:
            _join(path[-1])

    def match(self, topic: str) -> list[T]:
        """The values of all patterns that match. A first token with ``$`` is matched by its own name only."""
        tokens = topic.split(".")
        starts: list[int] = []  # where each token begins; made when it is needed
        found: list[T] = []
        wild = not topic.startswith(RESERVED)
        nodes = [(self._root, 0)]
        for node, at in nodes:  # grows on the way
            if at == len(tokens):
                if node.here is not None:
                    found.append(node.here)
                continue
            if wild and node.rest is not None:
                found.append(node.rest)
            if node.children is not None:
                child = node.children.get(tokens[at])
                if child is not None and (child.width == 1 or _fits(child, topic, tokens, starts, at)):
                    nodes.append((child, at + child.width))
                child = node.children.get("*") if wild else None
                if child is not None and (child.width == 1 or _fits(child, topic, tokens, starts, at)):
                    nodes.append((child, at + child.width))
            wild = True
        return found


def _path(pattern: str) -> tuple[list[str], bool]:
    """The tokens of a pattern without a ``>`` at its end, and whether there was one."""
    tokens = pattern.split(".")
    if tokens[-1] == ">":
        return tokens[:-1], True
    return tokens, False


def _shared(label: list[str], tokens: Sequence[str], at: int) -> int:
    """How many tokens of a label are those of the path from ``at`` on."""
    count = 0
    for mine, other in zip(label, tokens[at : at + len(label)], strict=False):
        if mine != other:
            break
        count += 1
    return count


def _parted(node: _Node[T], width: int) -> _Node[T]:
    """A node of the first ``width`` tokens of another one, which becomes its only branch."""
    tokens = node.label.split(".")
    above: _Node[T] = _Node(".".join(tokens[:width]))
    node.rename(".".join(tokens[width:]))
    above.children = {tokens[width]: node}
    return above


def _join(node: _Node[T]) -> None:
    """Make one node of a node and its only branch, if no pattern ends between the two."""
    if node.children is not None and len(node.children) == 1 and node.here is None and node.rest is None:
        (child,) = node.children.values()
        node.rename(f"{node.label}.{child.label}")
        node.children, node.here, node.rest = child.children, child.here, child.rest
    elif not node.children:
        node.children = None


def _fits(node: _Node[T], topic: str, tokens: list[str], starts: list[int], at: int) -> bool:
    """Whether a topic goes on from a token with what the label says."""
    stop = at + node.width
    if stop > len(tokens):
        return False
    if node.literal:
        if not starts:
            starts += accumulate([len(token) + 1 for token in tokens], initial=0)
        return starts[stop] - starts[at] == len(node.label) + 1 and topic.startswith(node.label, starts[at])
    for want, token in zip(node.label.split("."), tokens[at:stop], strict=True):
        if want != token and want != "*":
            return False
    return True
