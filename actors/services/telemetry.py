"""Adds up what a run's renderers report of their work."""

from collections import Counter


class Telemetry:
    """Padding, busy time and notes, by model."""

    def __init__(self) -> None:
        self._num_slots: Counter[str] = Counter()
        self._num_padding: Counter[str] = Counter()
        self._seconds: dict[str, dict[str, tuple[float, float]]] = {}
        self._notes: dict[str, Counter[str]] = {}

    def add_batch(self, model: str, num_slots: int, num_padding: int) -> None:
        """Add a batch; for the arguments see `models.interface.Rendered`."""
        self._num_slots[model] += num_slots
        self._num_padding[model] += num_padding

    def set_busy_seconds(self, model: str, renderer: str, busy_seconds: float, seconds: float) -> None:
        """Set for how many of the seconds since its first chunk a renderer has been busy."""
        self._seconds.setdefault(model, {})[renderer] = (busy_seconds, seconds)

    def add_note(self, model: str, text: str) -> None:
        """Add an event that users should know of."""
        self._notes.setdefault(model, Counter())[text] += 1

    def padding(self, model: str) -> float:
        """Return the share of the denoiser's slots that were padding."""
        num_slots = self._num_slots[model]
        return round(self._num_padding[model] / num_slots, 4) if num_slots else 0.0

    def busy_share(self, model: str) -> float | None:
        """Return the share of all renderers' time since their first chunks; None if no chunk has been finished."""
        times = self._seconds.get(model, {}).values()
        return round(sum(busy for busy, _ in times) / sum(seconds for _, seconds in times), 4) if times else None

    def notes(self, model: str) -> dict[str, int]:
        """Return the events, and how often each happened."""
        return dict(self._notes.get(model, {}))
