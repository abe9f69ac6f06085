"""A mutant: the project with one guard taken away, and the tests that must notice.

Those of the code stand in `*.patches`, each a paragraph:

    name: what the guard is for
    in path/of/a/file, or path/of/statements.sql#name
    -what stands there, once
    +what stands there instead
    by tests/of/it.py::test_that_fails
"""

import re
from dataclasses import dataclass
from pathlib import Path


class StaleError(Exception):
    """What a mutant replaces is not there exactly once: the code has changed, and the list must follow."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """In `file`, or in its statement `file.sql#name`, `old` becomes `new`; without an `old`, the file is a new one.

    `why` says what the guard is for. `tests` are what pytest is called with, the likeliest and fastest first.
    """

    name: str
    file: str
    old: str
    new: str
    why: str
    tests: tuple[str, ...]

    def apply(self, tree: Path) -> None:
        """Raises StaleError."""
        changed = self.changed(tree)
        (tree / self._path).write_text(changed, encoding="utf-8")

    def changed(self, tree: Path) -> str:
        """What the file is without the guard. Raises StaleError."""
        if not self.old:
            return self.new
        text = (tree / self._path).read_text(encoding="utf-8")
        begin, end = _block(text, self.file.partition("#")[2])
        if (found := text.count(self.old, begin, end)) != 1:
            raise StaleError(f"{self.name}: what it replaces stands {found} times in {self.file}")
        return text[:begin] + text[begin:end].replace(self.old, self.new) + text[end:]

    @property
    def _path(self) -> str:
        return self.file.partition("#")[0]


def patches() -> list[Mutant]:
    """All that are kept in files, beside this one."""
    paragraphs = (each for file in sorted(Path(__file__).parent.glob("*.patches")) for each in _paragraphs(file))
    return [_read(each) for each in paragraphs]


def _paragraphs(file: Path) -> list[str]:
    """Without the first one, which says what they are about."""
    return file.read_text(encoding="utf-8").strip().split("\n\n")[1:]


def _read(paragraph: str) -> Mutant:
    head, file, *lines = paragraph.split("\n")
    name, _, why = head.partition(": ")
    said = {mark: [line.removeprefix(mark) for line in lines if line.startswith(mark)] for mark in ("-", "+", "by ")}
    old, new = ("\n".join(said[mark]) for mark in "-+")
    return Mutant(name, file.removeprefix("in "), old, new, why, tuple(said["by "]))


def _block(text: str, name: str) -> tuple[int, int]:
    """Where a named statement of a .sql file begins and ends; without a name, the file."""
    if not name:
        return 0, len(text)
    found = re.search(rf"^-- {name}: .*?(?=^-- \w+: |\Z)", text, re.DOTALL | re.MULTILINE)
    return found.span() if found else (0, 0)
