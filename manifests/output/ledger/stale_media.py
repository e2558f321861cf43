"""Media that no record names any more: noted in files before the records change, and removed later.

Readers who listed the records before the change still find the media for a while.
"""

import json
import time
from collections.abc import Collection
from dataclasses import dataclass

from rendermill.manifests.output import layout
from rendermill.manifests.output.fence import FencedFolder


@dataclass(frozen=True)
class _Note:
    """A file that names media.

    Attributes:
        due_at: The time by `time.monotonic` from which the media may be removed.
    """

    media: set[str]
    due_at: float


class StaleMedia:
    """The notes of an output.

    Args:
        folder: The output, under this run's lease.
        delay_seconds: The time that media stay after they were noted.

    Attributes:
        problems: Notes, or entries of notes, that are ignored, in words.
    """

    def __init__(self, folder: FencedFolder, delay_seconds: float) -> None:
        self._folder, self._delay_seconds = folder, delay_seconds
        self._num_files = 0
        self._notes: dict[str, _Note] = {}
        self.problems: list[str] = []

    @property
    def notes(self) -> list[str]:
        """The names of the notes."""
        return list(self._notes)

    @property
    def media(self) -> set[str]:
        """All media that are noted."""
        return set().union(*(note.media for note in self._notes.values()))

    @property
    def due(self) -> set[str]:
        """The media whose delay is over, by every note that names them."""
        now = time.monotonic()
        return self.media.difference(*(note.media for note in self._notes.values() if note.due_at > now))

    def note(self, media: Collection[str]) -> None:
        """Store a note of media, before the records that name them change.

        After a crash in between, the note names media that records still name; those are not removed.
        """
        noted = self._checked(media, "a record")
        if not noted:
            return
        name = layout.stale_media(self._folder.lease.number, self._num_files)
        self._num_files += 1
        self._folder.write(name, json.dumps(sorted(noted)).encode())
        self._notes[name] = _Note(noted, time.monotonic() + self._delay_seconds)

    def recover(self) -> None:
        """Read the notes of earlier runs, and compute their age by the store's own clock."""
        entries = self._folder.entries(layout.PENDING) | self._folder.entries(layout.FORMER_PENDING)
        for name in entries:
            if not name.endswith(".stale.json"):
                continue
            age = self._folder.seconds_since_modified(name)
            left = 0.0 if age is None else max(0.0, self._delay_seconds - age)
            self._notes[name] = _Note(self._read(name), time.monotonic() + left)

    def forget(self, media: Collection[str], notes: Collection[str]) -> None:
        """Remove those of the notes that name nothing but these media, which were removed, or are in use again."""
        done = [name for name in notes if self._notes[name].media.issubset(media)]
        self._folder.delete(done)
        for name in done:
            del self._notes[name]

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
        """Return the names that are media of the output: nothing else is removed, whatever a file says."""
        for name in media:
            if not layout.is_media(name):
                self.problems.append(
                    f"{place} names {name!r:.200}, which is no media file of this output: left as it is"
                )
        return {name for name in media if layout.is_media(name) and isinstance(name, str)}
