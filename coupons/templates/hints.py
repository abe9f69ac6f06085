"""Hints about what a marketer meant: CSS that looks like a tag, names of columns, placeholders of other systems."""

import re
from collections.abc import Iterator, Mapping

from coupons.attributes import RESERVED, attribute_name

RAW = "put CSS or JavaScript that contains {{, {% or {# between {% raw %} and {% endraw %}"

_CODE = re.compile(
    r"""<(style|script)\b.*?(?:</\1\s*>|\Z)|\s(?:on[a-z]+|style)\s*=\s*(?:"[^"]*"|'[^']*')""",
    re.IGNORECASE | re.DOTALL,
)
"""CSS and JavaScript: elements, and the attributes `style` and `on…`."""
_OPENING = re.compile(r"\{\{|\{%|\{#")
_NAME = r"[^\W\d][\w .-]{0,49}"
_COLUMN = re.compile(r"\{\{[ \t]*([^\W\d][\w -]{0,49}?)[ \t]*\}\}")
_OWN_TAG = re.compile(
    r"\{\{-?\s*[a-z_]\w*\s*(?:[|(][^{}]*)?-?\}\}|\{%-?\s*(?:if|elif|else|endif|raw|endraw)\b|\{#[^{}]*#\}"
)
_PLAIN_NAME = re.compile(r"[a-z_][a-z0-9_]*")
_OURS = re.compile(r"\{%-?\s*raw\b.*?\{%-?\s*endraw\s*-?%\}|\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", re.DOTALL)
_FOREIGN = re.compile(
    rf"\*\|(?P<bars>{_NAME})\|\*|%%(?P<percents>{_NAME})%%|\[\[\s*(?P<brackets>{_NAME}?)\s*\]\]"
    rf"|\$\{{\s*(?P<dollar>{_NAME}?)\s*\}}|(?<![\w{{$])\{{(?P<braces>{_NAME})\}}(?!\}})"
)


def hint(source: str, line: int) -> str:
    """Return what probably was meant at the line of a problem, as the end of a sentence; "" if it is not clear."""
    lines = [len(each) for each in source.splitlines(keepends=True)[:line]]
    end = sum(lines)
    tags = [found.start() for found in _OPENING.finditer(source[:end])]
    if tags and _has_code(source, min(tags[-1], end - lines[-1]), end):
        return f"; {RAW}"
    return next((f"; write {{{{ {name} }}}}" for at, name in _columns(source) if at == line), "")


def _has_code(source: str, start: int, end: int) -> bool:
    """Whether CSS or JavaScript that looks like a tag opens in this range. The error's line may have several tags."""
    return any(
        not _OWN_TAG.match(source, opening.start()) and not _COLUMN.match(source, opening.start())
        for code in _CODE.finditer(source)
        for opening in _OPENING.finditer(source, max(start, code.start()), min(end, code.end()))
    )


def suggestion(name: str) -> str | None:
    """Return the attribute that a name of a column means, if that has another name."""
    meant = attribute_name(name)
    return meant if meant and meant != name else None


def foreign_placeholders(parts: Mapping[str, str]) -> list[str]:
    """Return a warning for each placeholder of another system: `{name}`, `*|NAME|*`, `%%name%%`, `[[name]]`, `${name}`.

    It is mailed as it is, so it is probably a mistake. CSS, JavaScript and our own tags are not looked at.
    """
    return [warning for part, source in parts.items() for warning in _foreign(part, source)]


def _foreign(part: str, source: str) -> Iterator[str]:
    ours = source
    for pattern in (_OURS, _CODE) if part == "html" else (_OURS,):
        ours = pattern.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), ours)
    for found in _FOREIGN.finditer(ours):
        name = next(each for each in found.groups() if each)
        line = ours.count("\n", 0, found.start()) + 1
        yield f'{part}, line {line}: "{found[0]}" is mailed as it is; for an attribute write {{{{ {_meant(name)} }}}}'


def _meant(name: str) -> str:
    return attribute_name(name) or "name"


def _columns(source: str) -> Iterator[tuple[int, str]]:
    """Yield the line of each tag with the name of a column, such as `{{ First Name }}`, and the attribute's name."""
    for found in _COLUMN.finditer(source):
        words = set(re.split(r"[\s-]+", found[1]))
        if not _PLAIN_NAME.fullmatch(found[1]) and not words & RESERVED and (name := attribute_name(found[1])):
            yield source.count("\n", 0, found.start()) + 1, name
