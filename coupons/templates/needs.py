"""Finds the lists whose coupons a recipient's mail prints, without rendering the mail.

`CouponNeeds` compiles an extract of the message: its calls of `coupon` and the conditions around them, in the words of
the message. The engine that renders the mail evaluates the extract, so both agree, also about missing attributes,
filters and errors.

A set of lists is *consistent* if the mail prints the coupon of each of these lists while `has_coupon` is true for
exactly these lists. Three modules depend on this property:

- `CouponNeeds.find` computes the largest consistent set of all lists: the lists that the mail needs.
- `Template.render` computes the largest consistent set of the codes that the recipient got. It returns the other codes
  as unused.
- `sendability_problems` accepts only messages that print no further coupon when `has_coupon` becomes false. So the
  largest set remains when the lists that the mail does not print are removed, and a shortage adds no coupon.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import jinja2

from coupons.attributes import RESERVED
from coupons.templates.analysis import Analyzer, list_key
from coupons.templates.engine import new_engine

_JINJA = jinja2.Environment(autoescape=True, keep_trailing_newline=True)
_PART = "coupons"
_MARKS = 0xF0000
"""In an extract that prints no values, the character with this number stands for the coupon of the first list, the next
one for the second list. A mark takes 0.7 µs per mail, a call of a function in Python takes 2.0 µs.
"""
_MAX_KNOWN = 1_000
_CLOSING = {"variable_begin": "variable_end", "block_begin": "block_end", "raw_begin": "raw_end"}
_BRANCHING = frozenset({"if", "and", "or"})

Token = tuple[str, str]


class CouponNeeds:
    """Which lists a mail needs, depending on the recipient's attributes (not thread-safe).

    `conditional` is False if each mail prints a coupon of each list. `attributes` are used by the conditions around
    coupons. If there are none, each mail needs each list; it may still leave a code out when those of others are short.
    """

    def __init__(self, sources: Iterable[str], lists: Sequence[str]) -> None:
        """`sources` are the parts of a message without problems, `lists` are all lists that it names."""
        tags = _CouponTags()
        for source in sources:
            tags.add(source)
        self._marks = {} if tags.has_values else {chr(_MARKS + number): name for number, name in enumerate(lists)}
        extract = tags.extract({name: mark for mark, name in self._marks.items()})
        self.conditional = tags.has_conditions
        self.attributes = _attributes(extract)
        self._lists = frozenset(lists)
        self._has: frozenset[str] = frozenset()
        self._asked: set[str] = set()
        self._printed: set[str] = set()
        self._known: dict[str, frozenset[str]] = {}
        self._engine = new_engine()
        self._engine.add_global("coupon", self._coupon)
        self._engine.add_global("has_coupon", self._has_coupon)
        self._engine.add_template(_PART, extract)

    def find(self, attributes: Mapping[str, str]) -> frozenset[str]:
        """The lists whose coupons the mail prints if it gets a code of each of them.

        The result is the largest consistent set of lists: `has_coupon` is true for them and false for the others.

        Raises minijinja.TemplateError if a condition cannot be evaluated.
        """
        if not self.conditional:
            return self._lists
        values = {name: attributes[name] for name in self.attributes if name in attributes}
        self._has = self._lists
        while True:
            printed = self._evaluate(values)
            if not self._asked or self._asked <= printed:
                return printed & self._has
            self._has &= printed  # smaller than before, because `has_coupon` was true for a list that is not printed

    def _evaluate(self, values: Mapping[str, str]) -> frozenset[str]:
        self._asked.clear()
        self._printed.clear()
        rendered = self._engine.render_template(_PART, **values)
        if not self._marks:
            return frozenset(self._printed)
        found = self._known.get(rendered)
        if found is None:
            found = frozenset(self._marks[each] for each in rendered if each in self._marks)
            if len(self._known) < _MAX_KNOWN:
                self._known[rendered] = found
        return found

    def _coupon(self, name: str) -> str:
        self._printed.add(list_key(name))
        return ""

    def _has_coupon(self, name: str) -> bool:
        key = list_key(name)
        if key not in self._has:
            return False
        self._asked.add(key)
        return True


class _CouponTags:
    """Collects the tags that print coupons and the conditions around them. Drops all other tags and all text.

    `has_values`: a collected tag may also print values.
    """

    def __init__(self) -> None:
        self.has_conditions = False
        self.has_values = False
        self._blocks: list[list[str | _Coupon]] = [[]]  # the extract, then each open `if` block
        self._prints = [False]  # whether each of them prints a coupon

    def add(self, source: str) -> None:
        for tag in _tags(source):
            match tag[0][0]:
                case "variable_begin":
                    self._value(tag)
                case "block_begin":
                    self._block(tag)

    def extract(self, marks: Mapping[str, str]) -> str:
        pieces = (each if isinstance(each, str) else marks.get(each.name, each.call) for each in self._blocks[0])
        return "".join(pieces)

    def _value(self, tag: Sequence[Token]) -> None:
        words = [token for token in tag if token[0] != "whitespace"]
        literals = [words[at + 2][1] for at, word in enumerate(words) if word == ("name", "coupon")]
        if not literals:
            return
        self._prints[-1] = True
        if any(kind == "name" and word in _BRANCHING for kind, word in words):
            self.has_conditions = self.has_values = True
            self._blocks[-1].append(_source(tag))
        else:
            self._blocks[-1] += [_Coupon(literal) for literal in literals]

    def _block(self, tag: Sequence[Token]) -> None:
        keyword = next(word for kind, word in tag if kind == "name")
        if keyword == "if":
            self._blocks.append([])
            self._prints.append(False)
        self._blocks[-1].append(_source(tag))
        if keyword == "endif":
            block, prints = self._blocks.pop(), self._prints.pop()
            if prints:
                self.has_conditions = self._prints[-1] = True
                self._blocks[-1] += block


class _Coupon:
    """A call of `coupon` with a list's name in quotes."""

    def __init__(self, literal: str) -> None:
        self.call = f"{{{{ coupon({literal}) }}}}"
        self.name = list_key(next(_JINJA.lexer.wrap([(1, "string", literal)])).value)


def _tags(source: str) -> Iterator[list[Token]]:
    """The tags of a source, each as its tokens. A comment is dropped, `{% raw %}` with its content is one tag."""
    tag: list[Token] = []
    closing: str | None = None
    for _, kind, text in _JINJA.lex(source):
        closing = closing or _CLOSING.get(kind)
        if closing:
            tag.append((kind, text))
        if kind == closing:
            yield tag
            tag, closing = [], None


def _source(tag: Iterable[Token]) -> str:
    return "".join(text for _, text in tag)


def _attributes(extract: str) -> tuple[str, ...]:
    analyzer = Analyzer(reserved=RESERVED)
    analyzer.analyze(_PART, extract)
    return tuple(sorted(analyzer.mentioned))
