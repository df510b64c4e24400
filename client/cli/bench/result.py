"""What a run has shown, for people and for programs."""

import attrs

from .latencies import Latencies
from .plan import Plan

_PERCENTILES = (50.0, 90.0, 99.0, 99.9, 100.0)


@attrs.frozen(slots=True)
class Result:
    """One run's figures."""

    plan: Plan
    published: int
    """Messages that all publishers sent."""
    publish_s: float
    """Seconds from the first publish to the last."""
    delivered: int
    """Messages that all subscribers received, in their order."""
    deliver_s: float
    """Seconds from the first publish to the last delivery."""
    again: int
    """Deliveries that came twice or out of order."""
    refused: int
    """Publishes that the broker did not acknowledge."""
    dropped_subscribers: int
    """Subscribers that the broker or the SDK gave up for slow, or that lost their connection."""
    latencies: Latencies

    @property
    def lost(self) -> int:
        """Deliveries that never came."""
        return (self.published - self.refused) * self.plan.subscribers - self.delivered

    @property
    def clean(self) -> bool:
        """Was everything delivered, once, in order, to everyone?"""
        return not (self.lost or self.again or self.refused or self.dropped_subscribers)

    def to_map(self) -> dict[str, object]:
        """All of it, with the units in the names."""
        plan = self.plan
        return {
            "mode": plan.mode,
            "publishers": plan.publishers,
            "subscribers": plan.subscribers,
            "size_bytes": plan.size,
            "acknowledged": plan.acknowledged,
            "published": self.published,
            "published_per_s": round(_per_second(self.published, self.publish_s), 1),
            "delivered": self.delivered,
            "delivered_per_s": round(_per_second(self.delivered, self.deliver_s), 1),
            "delivered_bytes_per_s": round(_per_second(self.delivered * plan.size, self.deliver_s)),
            "lost": self.lost,
            "duplicates": self.again,
            "refused": self.refused,
            "dropped_subscribers": self.dropped_subscribers,
            "latency_us": self._latencies(),
        }

    def to_text(self) -> str:
        """All of it, one figure a line."""
        plan = self.plan
        who = f"{_counted(plan.publishers, 'publisher')}, {_counted(plan.subscribers, 'subscriber')}"
        load = "full load" if plan.mode == "tput" else f"{plan.rate:,g} messages/s"
        how = "acknowledged" if plan.acknowledged else "fire and forget"
        return "\n".join(
            (
                f"{who}, {plan.size} bytes, {how}, {load}",
                self._rate_line("published", self.published, self.publish_s),
                self._rate_line("delivered", self.delivered, self.deliver_s),
                f"lost        {self.lost:>12,}",
                f"duplicates  {self.again:>12,}",
                *self._troubles(),
                f"latency     {self._latency_text()}",
            )
        )

    def _rate_line(self, name: str, count: int, seconds: float) -> str:
        rate = _per_second(count, seconds)
        return f"{name:<11} {count:>12,} messages  {rate:>14,.0f}/s  {rate * self.plan.size / 1e6:,.1f} MB/s"

    def _troubles(self) -> list[str]:
        named = (("refused", self.refused), ("subscribers dropped", self.dropped_subscribers))
        return [f"{name:<11} {count:>12,}" for name, count in named if count]

    def _latencies(self) -> dict[str, int] | None:
        if not self.latencies.count:
            return None
        return {_name(percent): self.latencies.percentile(percent) for percent in _PERCENTILES}

    def _latency_text(self) -> str:
        figures = self._latencies()
        if figures is None:
            return "none measured"
        return "  ".join(f"{name} {_milliseconds(value)}" for name, value in figures.items())


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _name(percent: float) -> str:
    return "max" if percent == 100 else f"p{percent:g}"


def _milliseconds(microseconds: int) -> str:
    return f"{microseconds / 1000:.2f} ms"


def _per_second(count: int, seconds: float) -> float:
    return count / seconds if seconds > 0 else 0.0
