"""The tree of wildcard patterns: which of them match a topic, at a cost that does not grow with those that don't.

A pattern is a path of tokens; ``*`` is a branch of its own, ``>`` ends at the node above it. To match a topic, walk its
tokens and follow at each node the branch of that name and the ``*`` branch: what lies elsewhere is never looked at.
"""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class _Node(Generic[T]):
    __slots__ = ("children", "here", "rest")

    def __init__(self) -> None:
        self.children: dict[str, _Node[T]] = {}
        self.here: T | None = None  # the pattern that ends here
        self.rest: T | None = None  # the pattern that ends here in ">"


class PatternTree(Generic[T]):
    """Maps wildcard patterns to values. Not re-entrant; a pure data structure."""

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()

    def add(self, pattern: str, value: T) -> None:
        """Set the value of a (valid) pattern."""
        *path, last = pattern.split(".")
        node = self._root
        for token in path:
            node = node.children.setdefault(token, _Node())
        if last == ">":
            node.rest = value
        else:
            node.children.setdefault(last, _Node()).here = value

    def remove(self, pattern: str) -> None:
        """Forget a pattern that was added, and the branches that it leaves empty."""
        tokens = pattern.split(".")
        path = [self._root]
        for token in tokens if tokens[-1] != ">" else tokens[:-1]:
            path.append(path[-1].children[token])
        if tokens[-1] == ">":
            path[-1].rest = None
        else:
            path[-1].here = None
        for depth in range(len(path) - 1, 0, -1):
            node = path[depth]
            if node.children or node.here is not None or node.rest is not None:
                return
            del path[depth - 1].children[tokens[depth - 1]]

    def match(self, topic: str) -> list[T]:
        """The values of all patterns that match. A first token with ``$`` is matched by its own name only."""
        tokens = topic.split(".")
        found: list[T] = []
        nodes = [self._root]
        wild = not topic.startswith("$")
        for token in tokens:
            following: list[_Node[T]] = []
            for node in nodes:
                if wild and node.rest is not None:
                    found.append(node.rest)
                if child := node.children.get(token):
                    following.append(child)
                if wild and (child := node.children.get("*")):
                    following.append(child)
            nodes, wild = following, True
            if not nodes:
                return found
        found.extend(node.here for node in nodes if node.here is not None)
        return found
