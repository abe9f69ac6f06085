"""The code samples of the documentation: the fenced blocks of its Markdown pages."""

import re
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
_FENCED = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\n(?P<code>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Sample:
    """A fenced block. `output` is the content of a `text` block directly below it, if there is one."""

    page: str
    line: int
    language: str
    code: str
    output: str = ""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def samples(*languages: str, page: Path | None = None) -> list[Sample]:
    """Return the samples in these languages, of one page or of all pages."""
    found = [sample for each in ([page] if page else PAGES) for sample in _samples_of(each)]
    return [sample for sample in found if sample.language in languages]


def pages_with(language: str) -> list[Path]:
    return [page for page in PAGES if samples(language, page=page)]


def _samples_of(page: Path) -> list[Sample]:
    text = page.read_text(encoding="utf-8")
    name = str(page.relative_to(ROOT))
    found = []
    matches = list(_FENCED.finditer(text))
    for match, following in zip_longest(matches, matches[1:]):
        output = ""
        if following and following["language"] == "text" and not text[match.end() : following.start()].strip():
            output = dedent(following["code"])
        line = text.count("\n", 0, match.start()) + 1
        found.append(Sample(name, line, match["language"], dedent(match["code"]), output))
    return found
