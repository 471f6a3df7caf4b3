"""Folders written whole or not at all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from rftf_torchrl.digests import write_digests
from rftf_torchrl.files import name_in_errors, names_to_disk, to_disk
from rftf_torchrl.leftovers import clear_beside, mark_folder


class NewFolder:
    """A folder, or a file made of several, that is hidden beside its place until it is whole.

    What killed processes left of the same folder is removed first.

    Args:
        path: what to make. It must not exist.
        content: what it will hold, for messages.

    Attributes:
        hidden: where to write.
        published: whether it has its name.

    Raises:
        FileExistsError: where ``path`` exists.
        OSError: where the folder cannot be written.

    Example:
        >>> import tempfile
        >>> from rftf_torchrl import write_text
        >>> place = Path(tempfile.mkdtemp()) / "data"
        >>> folder = NewFolder(place, "data")
        >>> write_text(folder.hidden / "note.txt", "one line")
        >>> place.exists()
        False
        >>> folder.publish()
        >>> sorted(file.name for file in place.iterdir())
        ['digests.json', 'note.txt']
    """

    def __init__(self, path: Path, content: str) -> None:
        self.path, self.content, self.published = path, content, False
        if path.exists():
            raise FileExistsError(
                f"{path} exists, and {content} are never overwritten: choose another folder or "
                "remove it."
            )
        with name_in_errors(f"Cannot write {content} to {path}"):
            clear_beside(path)
            self._outer, self._mark = mark_folder(path)
            self.hidden = self._outer / "whole"
            self.hidden.mkdir()

    def publish(self, part: str = ".") -> None:
        """Give the folder, or one part of it, its name; a folder gets its digests.

        Raises:
            FileExistsError: where it appeared meanwhile; this one gets a name beside it.
            OSError: where the disk is full.
        """
        whole, path = self.hidden / part, self.path
        with name_in_errors(f"Cannot write {self.content} to {path}"):
            if whole.is_dir():
                write_digests(whole)
            for file in (whole, *whole.rglob("*")):
                (names_to_disk if file.is_dir() else to_disk)(file)
            if path.exists():
                path = path.with_name(f"{path.name}-{self._outer.name[-8:]}")
            os.replace(whole, path)
            self.published = True
            names_to_disk(path.parent)
        self.discard()
        if path != self.path:
            raise FileExistsError(
                f"{self.path} was made by another process meanwhile; the {self.content} are in "
                f"{path}."
            )

    def discard(self) -> None:
        """Remove what is hidden."""
        shutil.rmtree(self._outer, ignore_errors=True)
        self._mark.close()
