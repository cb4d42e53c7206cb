"""What this process knows of changes that make remembered answers false, whichever process made them."""

from storage.metadata.dialect import ChangeWatch

MAX_MARKS = 50_000


class Changes:
    """A number for each repository, and each topic by its name behind a "!", that grows with its changes. An answer
    read from the database is true as long as the number is what it was before the read."""

    def __init__(self, watch: ChangeWatch) -> None:
        self._watch = watch
        self._count = 0
        self._floor = 0
        self._marks: dict[str, int] = {}

    def mark(self, name: str) -> int | None:
        """The number now: every commit that had returned before this call is in it. None: nothing can be known.

        A few microseconds, for the event loop (see `SqliteWatch`).
        """
        changed = self._watch.poll()
        if changed is None:
            return None
        if changed:
            self._count += 1
            self._marks.update(dict.fromkeys(changed, self._count))
            if len(self._marks) > MAX_MARKS:
                self._marks.clear()
                self._floor = self._count
        return self._marks.get(name, self._floor)
