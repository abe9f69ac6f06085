"""Analysis of templates: placeholders, filters and conditions, before anything is sent.

The language is the common subset of Jinja2 and MiniJinja without loops, assignments and macros. Therefore the names
that a message needs are known when it is saved, a mail is at most as long as its sources and values together, and
rendering always ends. (MiniJinja limits instructions, but not memory: `{% set x = x ~ x %}`, repeated thirty times,
took a gigabyte.)
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

import jinja2
from jinja2 import nodes

from coupons.templates.hints import hint

_MAX_ARGUMENTS = {"default": 2, "d": 2} | dict.fromkeys(
    ("upper", "lower", "title", "capitalize", "trim", "escape", "e", "urlencode", "length", "int", "float"), 0
)
_TAGS = {  # tags whose text is not the lower-case name of their node
    "Assign": "set",
    "AssignBlock": "set",
    "CallBlock": "call",
    "FilterBlock": "filter",
    "FromImport": "from",
    "Getitem": "[…]",
    "ScopedEvalContextModifier": "autoescape",
}
_NESTING = {"if": 1, "endif": -1}
_DELIMITERS = ("variable_begin", "variable_end", "block_begin", "block_end", "comment_begin", "comment_end")
_RAW = ("raw_begin", "raw_end")

MAX_TOKENS = 50_000
"""Maximum tokens of a part: about 10,000 placeholders, which take 1.8 s to analyze."""
MAX_BRANCHES = 1_000
"""Maximum number of `elif` and `~` in a part. MiniJinja nests them; 7,500 overflow its stack and end the process."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Whole lines of a source. Lines with tags vary between recipients; lines without tags are constant."""

    source: str
    varies: bool


def list_key(name: str) -> str:
    """The normalized name of a coupon list, for comparison."""
    return name.strip().lower()


def problem_line(part: str, line: int, reason: str) -> str:
    readable = "".join(character if character.isprintable() else " " for character in reason)
    return f"{part}, line {line}: {readable}"


def split_chunks(source: str) -> tuple[Chunk, ...]:
    r"""Split a source into chunks. Rendered one by one, they give the same text as the whole source.

    The source is cut between lines, outside tags and conditions. Varying and constant chunks alternate. `source` must
    have no problems, and all its line breaks must be "\n". A source with a tag that trims white space (`{{- name -}}`)
    is not split.
    """
    tokens = [
        (kind, text) for _, kind, text in jinja2.Environment(autoescape=True, keep_trailing_newline=True).lex(source)
    ]
    if "".join(text for _, text in tokens) != source or any(map(_trims_whitespace, tokens)):
        return (Chunk(source, varies=True),)
    lines = _Lines()
    depth = 0
    opening = ""
    for kind, text in tokens:
        if kind == "data" and depth == 0:
            lines.text(text)
            continue
        lines.other(text)
        if kind in _RAW:
            depth += 1 if kind == "raw_begin" else -1
        elif opening == "block_begin" and kind == "name":
            depth += _NESTING.get(text, 0)
        opening = opening if kind == "whitespace" else kind
    return lines.chunks()


def _trims_whitespace(token: tuple[str, str]) -> bool:
    kind, text = token
    return "-" in text and kind in _DELIMITERS + _RAW


class _Lines:
    """Collects lines token by token. Adjacent lines of the same kind (varying or constant) form one chunk."""

    def __init__(self) -> None:
        self._chunks: list[Chunk] = []
        self._line = ""  # incomplete
        self._varies = False

    def text(self, text: str) -> None:
        end = text.find("\n") + 1
        if end == 0:
            self._line += text
            return
        self._add(self._line + text[:end], varies=self._varies)
        last = text.rfind("\n") + 1
        self._add(text[end:last], varies=False)
        self._line, self._varies = text[last:], False

    def other(self, text: str) -> None:
        self._line += text
        self._varies = True

    def chunks(self) -> tuple[Chunk, ...]:
        self._add(self._line, varies=self._varies)
        return tuple(self._chunks)

    def _add(self, source: str, *, varies: bool) -> None:
        if self._chunks and self._chunks[-1].varies == varies:
            source = self._chunks.pop().source + source
        if source:
            self._chunks.append(Chunk(source, varies=varies))


class Analyzer:
    """Collects the names and the problems of sources.

    An attribute is `required` if a source uses it without a `default` filter and without an enclosing `is defined`.
    Names that are `reserved` are not attributes. Each of the `problems` is one line: part, line number, reason.
    """

    def __init__(self, *, reserved: frozenset[str]) -> None:
        self._reserved = reserved
        self.lists: dict[str, None] = {}  # a set that keeps the order of first use
        self.required: set[str] = set()
        self.mentioned: set[str] = set()
        self.problems: list[str] = []
        self._part = ""
        self._source = ""
        self._branches = 0
        self._jinja = jinja2.Environment(autoescape=True)

    def analyze(self, part: str, source: str) -> None:
        self._part = part
        self._source = source
        self._branches = 0
        try:
            if any(islice(self._jinja.lex(source), MAX_TOKENS, None)):
                self._problem(1, f"more than {MAX_TOKENS} tokens")
                return
            self._statements(self._jinja.parse(source).body, frozenset())
        except jinja2.TemplateSyntaxError as error:
            self._problem(error.lineno, error.message or "syntax error")
        except RecursionError:
            self._problem(1, "nested too deeply")
        except ValueError:  # raised by int()
            self._problem(1, "number too large")
        if self._branches > MAX_BRANCHES:
            self._problem(1, f'more than {MAX_BRANCHES} uses of "elif" and "~"')

    def _problem(self, line: int, reason: str) -> None:
        self.problems.append(problem_line(self._part, line, f"{reason}{hint(self._source, line)}"))

    # In the methods below, `given` contains the attributes that certainly exist at the node.

    def _statements(self, body: Iterable[nodes.Node], given: frozenset[str]) -> None:
        for node in body:
            match node:
                case nodes.Output():
                    for output in node.nodes:
                        self._expression(output, given, printed=True)
                case nodes.If():
                    self._if(node, given)
                case _:
                    self._reject(node)

    def _if(self, node: nodes.If, given: frozenset[str]) -> None:
        self._branches += len(node.elif_)
        for branch in (node, *node.elif_):
            self._expression(branch.test, given)
            self._statements(branch.body, given | _defined_when(branch.test, holds=True))
            given |= _defined_when(branch.test, holds=False)
        self._statements(node.else_, given)

    def _expression(self, node: nodes.Node, given: frozenset[str], *, printed: bool = False) -> None:  # noqa: C901 one case per kind of node
        """Analyze an expression. `printed`: its value is output unchanged. A coupon is allowed only there."""
        match node:
            case nodes.TemplateData() | nodes.Const():
                pass
            case nodes.Name():
                self._name(node, given)
            case nodes.Call(node=nodes.Name(name="coupon" | "has_coupon" as function)):
                self._list(node, function, printed=printed)
            case nodes.Filter():
                self._filter(node, given, printed=printed)
            case nodes.Test(node=nodes.Name() as name, name="defined" | "undefined"):
                self._name(name, given | {name.name})
            case nodes.And() | nodes.Or():
                self._expression(node.left, given)
                self._expression(node.right, given | _defined_when(node.left, holds=isinstance(node, nodes.And)))
            case nodes.CondExpr():
                self._inline_if(node, given, printed=printed)
            case nodes.Concat():
                self._branches += len(node.nodes)
                for part in node.nodes:
                    self._expression(part, given, printed=printed)
            case nodes.Compare() | nodes.Operand() | nodes.Not() | nodes.Neg() | nodes.List() | nodes.Tuple():
                for child in node.iter_child_nodes():
                    self._expression(child, given)
            case _:
                self._reject(node)

    def _inline_if(self, node: nodes.CondExpr, given: frozenset[str], *, printed: bool) -> None:
        self._expression(node.test, given)
        self._expression(node.expr1, given | _defined_when(node.test, holds=True), printed=printed)
        if node.expr2 is not None:
            self._expression(node.expr2, given | _defined_when(node.test, holds=False), printed=printed)

    def _name(self, node: nodes.Name, given: frozenset[str]) -> None:
        if node.name in self._reserved:
            self._problem(node.lineno, f'"{node.name}" cannot be used as an attribute')
            return
        self.mentioned.add(node.name)
        if node.name not in given:
            self.required.add(node.name)

    def _list(self, call: nodes.Call, function: str, *, printed: bool) -> None:
        if function == "coupon" and not printed:
            self._problem(call.lineno, "coupon(…) can only be printed, directly or with urlencode")
        match call:
            case nodes.Call(args=[nodes.Const(value=str(name))], kwargs=[], dyn_args=None, dyn_kwargs=None) if (
                key := list_key(name)
            ) and key.isprintable():
                self.lists[key] = None
            case _:
                self._problem(call.lineno, f'{function}(…) needs one list name in quotes: {function}("spring-10")')

    def _filter(self, node: nodes.Filter, given: frozenset[str], *, printed: bool) -> None:
        most = _MAX_ARGUMENTS.get(node.name)
        if most is None or node.node is None:
            self._problem(node.lineno, f'filter "{node.name}" is not supported')
            return
        if len(node.args) > most or node.kwargs or node.dyn_args or node.dyn_kwargs:
            accepted = f"at most {most} positional" if most else "no"
            self._problem(node.lineno, f'filter "{node.name}" accepts {accepted} arguments')
        if node.name in ("default", "d") and isinstance(node.node, nodes.Name):
            given_to_filter = given | {node.node.name}
        else:
            given_to_filter = given
        self._expression(node.node, given_to_filter, printed=printed and node.name == "urlencode")
        for argument in node.args:
            self._expression(argument, given)

    def _reject(self, node: nodes.Node) -> None:
        if isinstance(node, nodes.Scope):  # wraps a tag and has no line number
            node = node.body[0]
        match node:
            case nodes.Call(node=nodes.Name(name=name)):
                word = f"{name}(…)"
            case nodes.Getattr():
                word = f".{node.attr}"
            case nodes.Test():
                word = f"is {node.name}"
            case nodes.BinExpr():
                word = node.operator or ""
            case _:
                word = _TAGS.get(type(node).__name__, type(node).__name__.lower())
        self._problem(node.lineno, f'"{word}" is not supported')


def _defined_when(test: nodes.Node, *, holds: bool) -> frozenset[str]:
    """The attributes that certainly exist if `test` is true (`holds`) or false (not `holds`)."""
    match test:
        case nodes.Test(node=nodes.Name(name=name), name="defined") if holds:
            return frozenset({name})
        case nodes.Test(node=nodes.Name(name=name), name="undefined") if not holds:
            return frozenset({name})
        case nodes.Not():
            return _defined_when(test.node, holds=not holds)
        case nodes.And() | nodes.Or():
            left, right = _defined_when(test.left, holds=holds), _defined_when(test.right, holds=holds)
            return left | right if isinstance(test, nodes.And) == holds else left & right
    return frozenset()
