"""Texts that users read are plain technical English. Some bad patterns, listed in CONTRIBUTING.md, are checked here."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("coupons", "producers", "sandbox", "workers")

PATTERNS = {
    r"\b(nobody|somebody|everybody|anybody|someone|a person)\b": "name the worker or the operator, or use the passive",
    r"\b(whatever|whoever)\b|\bwhat (was|were|has|had|cannot|came|comes|stands|goes)\b": "name the thing",
    r"(?<!there )\b(is|are|was|were) no (?!longer\b|more\b)[a-z]": "is not a …",
    r"\b(is|are|was|were|be|being) (told|said)\b": "reports, logs, raises, returns, shows",
    r"\bso (many|often|long|few)\b(?! as| that)": "a number: n, up to n",
    r"\b(anew|mend(ed|ing|s)?|for want of|dawdles?|meanwhile)\b": "again, fix, for lack of, delay, in the meantime",
    r"(^|[.;:] )of (each|all|these|those|a|an|the|what|its) ": "normal word order: the count of each …",
    r"\bstands? (in|there|beside|before|at|for)\b": "is in, is stored in",
    r"\bby (itself|themselves)\b": "automatically",
    r"\bfor ever\b": "forever, indefinitely",
    r"\bbeside\b": "next to, compared with",
    r"\b(comes?|came) to (its|their|an|no|the) end\b": "finishes, completes",
    r"\b(mails?|codes?|lines?|rows?|bytes|times) an? (second|hour|minute)\b": "per second, per hour",
    r"\b(put off|in hand|not taken|that many)\b": "postponed, in flight, rejected, n",
    r"\b(proved?|proofs?|the books|defects?)\b": "checked, invariant, the database, internal error",
    r"\b(promised|bound codes?|codes? bound)\b": "reserved, assigned",
}
"""Each pattern with its replacement."""

_QUOTED = re.compile(r"`[^`]*`|(?<!\*)\*[^*]+\*(?!\*)")
"""Code in backticks, and words in italics that a page explains; both are not checked."""

_FIRST_COMMENT = re.compile(r"^-- (\w+): (.+)$", re.MULTILINE)

EXCEPTIONS = {("sandbox/postgres.py", "nobody"): "the name of a Unix account"}
"""Texts that match a pattern and are right: file, fragment and the reason."""


@dataclass(frozen=True, slots=True)
class Text:
    """A text that a user reads, with its place."""

    place: str
    text: str

    def findings(self) -> list[str]:
        text = " ".join(self.text.split())
        for file, fragment in EXCEPTIONS:
            if self.place.startswith(f"{file}:"):
                text = text.replace(fragment, "")
        return [
            f"{self.place}: {match[0].strip()!r} → {instead}"
            for pattern, instead in PATTERNS.items()
            for match in re.finditer(pattern, text, re.IGNORECASE)
        ]


def _documentation() -> list[Path]:
    generated_from_code = {ROOT / "docs/reference/settings.md", ROOT / "docs/reference/command-line.md"}
    pages = {*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "Makefile"}
    return sorted(pages - generated_from_code)


def _paragraphs(page: Path) -> Iterator[Text]:
    """Return paragraphs and table rows; a wrapped sentence is one text.

    The last column of the glossary is omitted, because it has the replaced words.
    """
    number = 0
    for paragraph in re.split(r"(\n\n|\n(?=[|\-#]))", page.read_text(encoding="utf-8")):
        text = paragraph.rpartition(" | ")[0] if page.name == "CONTRIBUTING.md" else ""
        yield Text(f"{page.relative_to(ROOT)}:{number + 1}", _QUOTED.sub("…", text or paragraph))
        number += paragraph.count("\n")


def _strings(module: Path) -> Iterator[Text]:
    """Return string literals, such as messages and log events. Docstrings are included only if they are help texts."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    help_texts = {
        id(each.value)
        for node in ast.walk(tree)
        if _is_command(node)
        for each in node.body[:1]
        if isinstance(each, ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings - help_texts:
            yield Text(f"{module.relative_to(ROOT)}:{node.lineno}", node.value)


def _is_command(node: ast.AST) -> TypeGuard[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Whether the node is a function with a click decorator, whose docstring is a help text."""
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return False
    return any(".command" in ast.unparse(each) or ".group" in ast.unparse(each) for each in node.decorator_list)


@pytest.mark.parametrize("page", _documentation(), ids=lambda page: str(page.relative_to(ROOT)))
def test_the_documentation_is_plain_english(page: Path) -> None:
    """README, CHANGELOG, CONTRIBUTING and docs/ contain none of the patterns."""
    assert [finding for text in _paragraphs(page) for finding in text.findings()] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_the_texts_of_the_program_are_plain_english(package: str) -> None:
    """Help texts, messages, log events, settings and pages of the console contain none of the patterns."""
    modules = sorted((ROOT / package).rglob("*.py"))
    texts = [text for module in modules for text in _strings(module)]
    pages = sorted((ROOT / package).rglob("*.html"))
    texts += [
        Text(f"{page.relative_to(ROOT)}:{number}", line)
        for page in pages
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1)
    ]
    assert [finding for text in texts for finding in text.findings()] == []


def test_the_sentences_of_verify_are_plain_english() -> None:
    """`coupons verify` prints the first comment of each block, which contains none of the patterns."""
    file = ROOT / "coupons/store/invariants.sql"
    texts = [Text(f"{file.name}:{name}", sentence) for name, sentence in _FIRST_COMMENT.findall(file.read_text())]
    assert len(texts) >= 9
    assert [finding for text in texts for finding in text.findings()] == []


def test_each_exception_is_needed() -> None:
    """Each fragment in EXCEPTIONS still occurs in its file."""
    needless = [fragment for file, fragment in EXCEPTIONS if fragment not in (ROOT / file).read_text(encoding="utf-8")]
    assert needless == []
