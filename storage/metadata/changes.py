"""What this process knows of changes that make remembered answers false, whichever process made them."""

from collections.abc import Collection

from storage.metadata.watch import EVERYTHING, ChangeWatch

MAX_MARKS = 50_000


class Changes:
    """A number for each repository, and each topic by its name behind a "!", that grows with its changes.

    An answer read from the database is true as long as the number is what it was before the read. Whoever answers a
    request awaits `look` first, once; on SQLite that is free, because there `mark` looks by itself.
    """

    def __init__(self, watch: ChangeWatch) -> None:
        self._watch = watch
        self._count = 0
        self._floor = 0
        self._marks: dict[str, int] = {}
        self.look = watch.look

    def mark(self, name: str) -> int | None:
        """The number: every commit that had returned before the caller's last `look` is in it. None: nothing can be
        known, ask the database.

        A few microseconds, for the event loop.
        """
        changed = self._watch.poll()
        if changed is None:
            return None
        if changed:
            self._note(changed)
        return self._marks.get(name, self._floor)

    def peek(self, name: str) -> int:
        """The number as of the last `mark`, of whatever name: for a caller whose `mark` has just given a number, in the
        same turn of the event loop."""
        return self._marks.get(name, self._floor)

    def before(self, name: str) -> int:
        """The number to remember an answer with that is going to be read from the database now. It may be too small,
        and then the answer is forgotten for nothing; it is never too large."""
        marked = self.mark(name)
        return self._marks.get(name, self._floor) if marked is None else marked

    def changed_here(self) -> None:
        """This process has committed a change: believe memory again when the next `look` has seen it."""
        self._watch.changed_here()

    def _note(self, changed: Collection[str]) -> None:
        self._count += 1
        self._marks.update(dict.fromkeys(changed, self._count))
        if EVERYTHING in changed or len(self._marks) > MAX_MARKS:
            self._marks.clear()
            self._floor = self._count
