"""A disk that notes every write, and what a power failure could have left of it.

`Recorder` is a VFS of apsw that keeps its files in memory and logs what SQLite asks of the disk. `Disk` replays a log
up to any point and gives images of what is found there after the power came back.

What the disk promises is no more than POSIX and SQLite's own assumptions:

1. What was synced is there, whole. A sync of a new journal or log syncs the folder as well, as SQLite's unix VFS does.
2. What was not synced is there, or not, or torn at 512 bytes, in any combination within a file; sectors that a lost
   write would have added hold zeros or junk. No byte beside a write is touched (POWERSAFE_OVERWRITE).
3. What a failed sync was to write is lost, unless it is written again: a later sync says nothing about it.
4. New and removed names that were not synced are there or not; of one name, in the order of the calls.

apsw can't give a VFS shared memory, so the recorded connection must hold the file alone (``locking_mode=EXCLUSIVE``,
which keeps the index of the log in the heap). Writes, syncs and checkpoints of the log are the same; the one difference
is the rollback journal of the very first transaction, the switch to the log. And apsw raises what SQLite's automatic
checkpoint would ignore, so a sync that fails there unnoticed is not covered.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import apsw

if TYPE_CHECKING:
    import random
    from collections.abc import Collection, Iterable, Mapping
    from pathlib import Path

SECTOR_BYTES = 512
"""What a disk writes at once: never torn itself."""

_FOLDER_SYNCED = apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL
"""SQLite's unix VFS syncs the folder with the first sync of such a file."""


@dataclass(frozen=True, slots=True)
class Create:
    """A new file got a name."""

    file: int
    name: str
    syncs_folder: bool


@dataclass(frozen=True, slots=True)
class Delete:
    """A name was removed, for good at once if the folder was synced."""

    name: str
    syncs_folder: bool


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes were written."""

    file: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Truncate:
    """A file was cut, or stretched by zeros."""

    file: int
    size: int


@dataclass(frozen=True, slots=True)
class Sync:
    """A file was synced."""

    file: int


@dataclass(frozen=True, slots=True)
class FailedSync:
    """A sync failed. As on Linux, what was not written yet counts as written from then on, and never will be."""

    file: int


Entry = Create | Delete | Write | Truncate | Sync | FailedSync


class Recorder(apsw.VFS):
    """A VFS for one connection; ``log`` grows with every call that changes the disk.

    Attributes:
        name: By which SQLite knows it.
        log: What was asked of the disk, in order.
        failing_syncs: Which syncs fail, counted from 1; none by default.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(name, base="")
        self.log: list[Entry] = []
        self.failing_syncs: Collection[int] = ()
        self._syncs = 0
        self._names: dict[str, _Content] = {}
        self._made = 0

    def sync(self, file: int) -> bool:
        """Log a sync; tell whether it succeeded."""
        self._syncs += 1
        is_failing = self._syncs in self.failing_syncs
        self.log.append(FailedSync(file) if is_failing else Sync(file))
        return not is_failing

    def rewrite(self, name: str) -> None:
        """Do what `lazymig.sqlite.rewrite` does.

        Raises:
            OSError: The sync is one that fails.
        """
        content = self._names[name]
        self.log.append(Write(content.number, 0, bytes(content.data)))
        if not self.sync(content.number):
            raise OSError(errno.EIO, "as asked")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802  (SQLite's)
        """Open or make a file."""
        asked, flags[1] = flags[0], flags[0]
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        if path is None:  # a temporary file: of no use after a power failure
            return _File(None, _Content(0))  # type: ignore[return-value]  # apsw asks for the methods only
        if path not in self._names:
            self._made += 1
            self.log.append(Create(self._made, path, bool(asked & _FOLDER_SYNCED)))
            self._names[path] = _Content(self._made)
        return _File(self, self._names[path])  # type: ignore[return-value]  # as above

    def xAccess(self, pathname: str, flags: int) -> bool:  # noqa: N802
        """Tell whether a file is there."""
        return pathname in self._names

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802, FBT001
        """Remove a file."""
        self.log.append(Delete(filename, syncdir))
        del self._names[filename]

    def xFullPathname(self, name: str) -> str:  # noqa: N802
        """Names are paths already."""
        return name


@dataclass(slots=True)
class _Content:
    number: int
    data: bytearray = field(default_factory=bytearray)


class _File:
    """An open file of a `Recorder`; without one its calls are not logged."""

    def __init__(self, recorder: Recorder | None, content: _Content) -> None:
        self._recorder = recorder
        self._content = content

    def _note(self, entry: Write | Truncate) -> None:
        if self._recorder is not None:
            self._recorder.log.append(entry)

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        return bytes(self._content.data[offset : offset + amount])

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        data = bytes(data)
        self._note(Write(self._content.number, offset, data))
        _put(self._content.data, offset, data)

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        self._note(Truncate(self._content.number, newsize))
        _cut(self._content.data, newsize)

    def xSync(self, flags: int) -> None:  # noqa: N802
        if self._recorder is not None and not self._recorder.sync(self._content.number):
            error = apsw.IOError("as asked")
            error.extendedresult = apsw.SQLITE_IOERR_FSYNC  # type: ignore[attr-defined]  # its stubs leave it out
            raise error

    def xFileSize(self) -> int:  # noqa: N802
        return len(self._content.data)

    def xSectorSize(self) -> int:  # noqa: N802
        return 4096  # as SQLite's unix VFS says

    def xDeviceCharacteristics(self) -> int:  # noqa: N802
        return apsw.SQLITE_IOCAP_POWERSAFE_OVERWRITE  # likewise

    def xLock(self, level: int) -> None:  # noqa: N802
        pass  # there is one connection

    def xUnlock(self, level: int) -> None:  # noqa: N802
        pass

    def xCheckReservedLock(self) -> bool:  # noqa: N802
        return False

    def xFileControl(self, op: int, ptr: int) -> bool:  # noqa: N802
        return False

    def xClose(self) -> None:  # noqa: N802
        pass


def _put(data: bytearray, offset: int, piece: bytes) -> None:
    if offset > len(data):
        data.extend(bytes(offset - len(data)))
    data[offset : offset + len(piece)] = piece


def _cut(data: bytearray, size: int) -> None:
    del data[size:]
    data.extend(bytes(size - len(data)))


@dataclass(slots=True)
class _Inode:
    syncs_folder: bool
    synced: bytearray = field(default_factory=bytearray)
    pending: list[Write | Truncate] = field(default_factory=list)


class Disk:
    """What is on the disk after the first entries of a log.

    Attributes:
        position: How many entries have been replayed.
    """

    def __init__(self) -> None:
        self.position = 0
        self._inodes: dict[int, _Inode] = {}
        self._names: dict[str, int] = {}
        self._renamed: list[tuple[str, int | None]] = []

    def replay(self, log: Iterable[Entry]) -> None:
        """Go on by these entries."""
        for entry in log:
            self.position += 1
            match entry:
                case Create(file, name, syncs_folder):
                    self._inodes[file] = _Inode(syncs_folder)
                    self._renamed.append((name, file))
                case Delete(name, syncs_folder):
                    self._renamed.append((name, None))
                    if syncs_folder:
                        self._sync_folder()
                case Sync(file):
                    self._sync(self._inodes[file])
                case FailedSync(file):
                    self._inodes[file].pending.clear()
                case Write(file) | Truncate(file):
                    self._inodes[file].pending.append(entry)

    def _sync(self, inode: _Inode) -> None:
        for entry in inode.pending:
            _settle(inode.synced, entry)
        inode.pending.clear()
        if inode.syncs_folder:
            self._sync_folder()
            inode.syncs_folder = False

    def _sync_folder(self) -> None:
        for name, file in self._renamed:
            _rename(self._names, name, file)
        self._renamed.clear()

    @property
    def is_synced(self) -> bool:
        """Whether a power failure would lose nothing."""
        return not self._renamed and not any(inode.pending for inode in self._inodes.values())

    def image(self, rng: random.Random) -> dict[str, bytes]:
        """Return files as a power failure now may leave them: name to content; the same for the same seed."""
        names = dict(self._names)
        kept: dict[str, bool] = {}
        for name, file in self._renamed:
            kept[name] = kept.get(name, True) and rng.random() < 0.5
            if kept[name]:
                _rename(names, name, file)
        return {name: bytes(_failed(self._inodes[file], rng)) for name, file in sorted(names.items())}


def _rename(names: dict[str, int], name: str, file: int | None) -> None:
    if file is None:
        names.pop(name, None)
    else:
        names[name] = file


def _settle(data: bytearray, entry: Write | Truncate) -> None:
    if isinstance(entry, Write):
        _put(data, entry.offset, entry.data)
    else:
        _cut(data, entry.size)


def _failed(inode: _Inode, rng: random.Random) -> bytearray:
    """Return a file's content with a random part of what was not synced; how large a part is random as well."""
    data = bytearray(inode.synced)
    odds = rng.choice((0.0, 0.3, 0.6, 0.9, 1.0))
    for entry in inode.pending:
        if rng.random() < odds:
            _settle(data, entry)
        elif isinstance(entry, Write) and rng.random() < 0.5:
            _tear(data, entry, rng)
    return data


def _tear(data: bytearray, entry: Write, rng: random.Random) -> None:
    """Write some of the sectors; those that would have made the file longer may hold zeros or junk instead."""
    first = entry.offset
    while first < entry.offset + len(entry.data):
        last = min(first - first % SECTOR_BYTES + SECTOR_BYTES, entry.offset + len(entry.data))
        fate = rng.choice(("written", "lost", "junk"))
        if fate == "written":
            _put(data, first, entry.data[first - entry.offset : last - entry.offset])
        elif fate == "junk" and first >= len(data):
            _put(data, first, rng.randbytes(last - first))
        first = last


def lay_down(image: Mapping[str, bytes], folder: Path) -> None:
    """Write an image's files into an empty folder."""
    for name, content in image.items():
        (folder / name.lstrip("/")).write_bytes(content)
