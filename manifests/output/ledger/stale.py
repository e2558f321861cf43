"""Media that no record names any more: noted before the records change, and removed some time after.

Readers who listed the records before still find their files meanwhile.
"""

import json
import time
from collections.abc import Collection

from rendermill.manifests.output import layout
from rendermill.manifests.output.fence import FencedFolder


class StaleMedia:
    """Notes of such media, each a file that says what is to go and whose age says when.

    Args:
        folder: the output, under this run's lease.
        delay_seconds: how long media stay.

    Attributes:
        problems: notes, or entries of notes, that are left out of account, in words.
    """

    def __init__(self, folder: FencedFolder, delay_seconds: float) -> None:
        self._folder, self._delay_seconds = folder, delay_seconds
        self._num_files = 0
        self._notes: dict[str, set[str]] = {}
        self._due_at: dict[str, float] = {}
        self.problems: list[str] = []

    @property
    def media(self) -> set[str]:
        """All that is noted."""
        return self.named_by(self._notes)

    @property
    def due(self) -> set[str]:
        """The media that readers have had enough time for."""
        now = time.monotonic()
        return {name for name in self.media if self._due_at[name] <= now}

    def note(self, media: Collection[str]) -> None:
        """Write down media before records that name them give way."""
        noted = self._checked(media, "a record")
        if not noted:
            return
        name = layout.stale_media(self._folder.lease.number, self._num_files)
        self._num_files += 1
        self._folder.write(name, json.dumps(sorted(noted)).encode())
        self._take(name, noted, time.monotonic() + self._delay_seconds)

    def recover(self) -> None:
        """Read the notes of earlier runs; their age is told by the store's own clock."""
        entries = self._folder.entries(layout.PENDING) | self._folder.entries(layout.FORMER_PENDING)
        for name in entries:
            if not name.endswith(".stale.json"):
                continue
            age = self._folder.seconds_since_modified(name)
            left = 0.0 if age is None else max(0.0, self._delay_seconds - age)
            self._take(name, self._read(name), time.monotonic() + left)

    @property
    def notes(self) -> list[str]:
        """The files that there are by now."""
        return list(self._notes)

    def named_by(self, notes: Collection[str]) -> set[str]:
        """The media that these notes name."""
        return set().union(*(self._notes[name] for name in notes))

    def forget(self, done: Collection[str], notes: Collection[str]) -> None:
        """Remove those of these notes that name nothing else than what was removed, or is in use again."""
        finished = [name for name in notes if self._notes[name].issubset(done)]
        self._folder.delete(finished)
        for name in finished:
            del self._notes[name]

    def _take(self, name: str, media: set[str], due_at: float) -> None:
        self._notes[name] = media
        for path in media:
            self._due_at[path] = max(due_at, self._due_at.get(path, due_at))

    def _read(self, name: str) -> set[str]:
        try:
            content = json.loads(self._folder.read(name) or b"[]")
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, list):
            self.problems.append(f"{name} is damaged and is removed: media that it named may be left over")
            return set()
        return self._checked(content, name)

    def _checked(self, media: Collection[object], place: str) -> set[str]:
        """The names that are media of the output: nothing else is removed, whatever a file says."""
        for name in media:
            if not layout.is_media(name):
                self.problems.append(
                    f"{place} names {name!r:.200}, which is no media file of this output: left as it is"
                )
        return {name for name in media if layout.is_media(name) and isinstance(name, str)}
