"""A mutant: the project without one guard, and the tests that must fail then.

Mutants of the code are in `*.patches`, one paragraph each:

    name: the purpose of the guard
    in path/of/a/file, or path/of/statements.sql#name
    -text to replace; it occurs once
    +replacement
    by tests/of/it.py::test_that_fails
"""

import re
from dataclasses import dataclass
from pathlib import Path


class StaleError(Exception):
    """The text that a mutant replaces does not occur exactly once: the code has changed, so update the patch."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """A mutant replaces `old` with `new` in `file`, or in one statement of it (`file.sql#name`).

    If `old` is empty, it creates the file. `why` is the purpose of the guard. `tests` are arguments of pytest: the test
    that most likely fails comes first.
    """

    name: str
    file: str
    old: str
    new: str
    why: str
    tests: tuple[str, ...]

    def apply(self, tree: Path) -> None:
        """Remove the guard in this tree. Raises StaleError."""
        changed = self.changed(tree)
        (tree / self._path).write_text(changed, encoding="utf-8")

    def changed(self, tree: Path) -> str:
        """The content of the file without the guard. Raises StaleError."""
        if not self.old:
            return self.new
        text = (tree / self._path).read_text(encoding="utf-8")
        begin, end = _block(text, self.file.partition("#")[2])
        if (found := text.count(self.old, begin, end)) != 1:
            raise StaleError(f"{self.name}: the text to replace occurs {found} times in {self.file}")
        return text[:begin] + text[begin:end].replace(self.old, self.new) + text[end:]

    @property
    def _path(self) -> str:
        return self.file.partition("#")[0]


def patches() -> list[Mutant]:
    """The mutants of all `*.patches` in this folder."""
    paragraphs = (each for file in sorted(Path(__file__).parent.glob("*.patches")) for each in _paragraphs(file))
    return [_read(each) for each in paragraphs]


def _paragraphs(file: Path) -> list[str]:
    """The paragraphs of a file of patches, without the first, which describes the file."""
    return file.read_text(encoding="utf-8").strip().split("\n\n")[1:]


def _read(paragraph: str) -> Mutant:
    head, file, *lines = paragraph.split("\n")
    name, _, why = head.partition(": ")
    marked = {mark: [line.removeprefix(mark) for line in lines if line.startswith(mark)] for mark in ("-", "+", "by ")}
    old, new = ("\n".join(marked[mark]) for mark in "-+")
    return Mutant(name, file.removeprefix("in "), old, new, why, tuple(marked["by "]))


def _block(text: str, name: str) -> tuple[int, int]:
    """The start and the end of a named statement in the text of a .sql file; without a name, of the whole text."""
    if not name:
        return 0, len(text)
    found = re.search(rf"^-- {name}: .*?(?=^-- \w+: |\Z)", text, re.DOTALL | re.MULTILINE)
    return found.span() if found else (0, 0)
