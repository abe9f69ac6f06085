"""A message: what it needs (`names_of`), and how it becomes one recipient's mail.

`Template.render` gives all of a mail and names the line of an error. `Template.render_varying` gives what differs from
recipient to recipient: the rest is the same in every mail, and is encoded once.
"""

import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import quote

import minijinja

from coupons.attributes import RESERVED
from coupons.errors import UserError
from coupons.templates.analysis import Reader, chunks_of, list_key, problem_line

MAX_RENDERED = 1 << 20  # characters of all parts of one mail
FUEL = 300_000  # instructions of a mail, some 75,000 placeholders: the language has no loops, so this is a second lock

_UNMAILABLE = re.compile("[\0\ud800-\udfff]")  # neither UTF-8 nor a database's text holds these
_IN_SUBJECT_A_SPACE = re.compile(r"[\x00-\x20\x7f-\x9f\u2028\u2029]+")
_ESCAPES = str.maketrans(  # as MiniJinja escapes
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#x27;", "/": "&#x2f;"}
)


class TemplateError(UserError):
    """A message cannot be used as it is written. `problems` has one line for each reason, as has the text."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class RenderError(UserError):
    """A message cannot be rendered for one recipient. The text never shows an attribute's value or a code."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a message as written, or of a mail as rendered. Text or HTML may be missing, not both."""

    subject: str
    text: str | None
    html: str | None

    def by_name(self) -> dict[str, str]:
        parts = {"subject": self.subject, "text": self.text, "html": self.html}
        return {name: part for name, part in parts.items() if part is not None}


@dataclass(frozen=True, slots=True)
class Names:
    """What a message names: lists in the order of first use, and attributes that it needs or can do without."""

    lists: tuple[str, ...]
    required: frozenset[str]
    optional: frozenset[str]


@dataclass(frozen=True, slots=True)
class Coupon:
    """What `coupon("…")` prints for one recipient: a code of their own, or the list's alternative text."""

    text: str
    is_code: bool

    def __repr__(self) -> str:
        return f"Coupon(is_code={self.is_code})"  # a traceback with values must not put a code into a log


def names_of(parts: Parts) -> Names:
    """What `parts` name. Raises TemplateError with every problem of every part."""
    reader = Reader(reserved=RESERVED)
    for part, source in parts.by_name().items():
        if found := _UNMAILABLE.search(source):
            line = source.count("\n", 0, found.start()) + 1
            reader.problems.append(problem_line(part, line, f"the character {found[0]!a} cannot be mailed"))
        else:
            reader.read(part, source)
    problems = reader.problems or _compile_problems(parts)
    if parts.text is None and parts.html is None:
        problems.append("a message needs a text or an HTML part")
    if not parts.subject.strip():
        problems.append("a message needs a subject")
    if problems:
        raise TemplateError(problems)
    return Names(tuple(reader.lists), frozenset(reader.required), frozenset(reader.mentioned - reader.required))


class Template:
    """A message, compiled once and rendered for one recipient after the other (not by several threads).

    `chunks` are text and HTML, cut into what is the same for all recipients and what varies; `mark` is the line that
    stands in front of each varying chunk that is rendered. Nobody who brings a value or writes a message can guess it.
    """

    def __init__(self, parts: Parts) -> None:
        """Raises TemplateError as `names_of` does."""
        self.names = names_of(parts)
        self.parts = _with_one_kind_of_line_break(parts)
        self.mark = f"{secrets.token_hex(16)}\n"
        self.chunks = {name: chunks_of(source) for name, source in self.parts.by_name().items() if name != "subject"}
        self._marks = {name: sum(chunk.varies for chunk in chunks) for name, chunks in self.chunks.items()}
        self._same_length = sum(
            -len(self.mark) if chunk.varies else len(chunk.source) for each in self.chunks.values() for chunk in each
        )
        self._between_parts = f"{secrets.token_hex(16)}\n"
        self._attributes = self.names.required | self.names.optional
        self._lists = frozenset(self.names.lists)
        self._coupons: Mapping[str, Coupon] = {}
        self._engine = _engine()
        for part, source in self.parts.by_name().items():
            self._engine.add_template(part, source)
        self._engine.add_template("varying", self._varying_source())
        # Two functions that read the mapping of the moment: 2.1 µs for what varies in a mail (subject, text, HTML),
        # against 1.3 µs with coupons rewritten to plain variables, which would need a second parser.
        self._engine.add_global("coupon", lambda name: self._coupons[list_key(name)].text)
        self._engine.add_global("has_coupon", lambda name: self._coupons[list_key(name)].is_code)

    def render(self, attributes: Mapping[str, str], coupons: Mapping[str, Coupon]) -> Parts:
        """The mail's parts for a recipient with these attributes and, by list name, these coupons.

        HTML is escaped, the subject is one line. Raises RenderError if a required attribute or a coupon is missing,
        if the mail gets too long, or if it prints one of the recipient's codes in neither text nor HTML.
        """
        context = self._context(attributes, coupons)
        self._coupons = coupons
        rendered = Parts(
            subject=_one_line(self._render("subject", context)),
            text=None if self.parts.text is None else self._render("text", context),
            html=None if self.parts.html is None else self._render("html", context),
        )
        _check_rendered(rendered, coupons)
        return rendered

    def render_varying(self, attributes: Mapping[str, str], coupons: Mapping[str, Coupon]) -> Parts:
        """As `render`, but text and HTML are only their varying chunks, with `mark` in front of each.

        A code must be in one of these to count as printed.
        """
        context = self._context(attributes, coupons)
        self._coupons = coupons
        try:  # one call for all parts: 2.1 µs, a call for each 3.2 µs
            pieces = self._engine.render_template("varying", **context).split(self._between_parts)
        except minijinja.TemplateError:
            pieces = []
        if len(pieces) != 4 or not self._is_marked(text=pieces[1], html=pieces[2]):
            self.render(attributes, coupons)  # raises, and names part and line
            raise RenderError("the mail cannot be put together")
        rendered = Parts(
            subject=_one_line(pieces[0]),
            text=None if self.parts.text is None else pieces[1],
            html=None if self.parts.html is None else pieces[2],
        )
        _check_rendered(rendered, coupons, mark=self.mark, further=self._same_length)
        return rendered

    def _varying_source(self) -> str:
        varying = {
            # The empty comment keeps a tag that eats blanks, `{{- name }}`, off the line break that ends the mark.
            name: "".join(f"{self.mark}{{##}}{chunk.source}" for chunk in chunks if chunk.varies)
            for name, chunks in self.chunks.items()
        }
        html = f"{{% autoescape 'html' %}}{varying.get('html', '')}"
        # No part stands directly before a tag: it may end with "{".
        return self._between_parts.join((self.parts.subject, varying.get("text", ""), html, "{% endautoescape %}"))

    def _is_marked(self, **parts: str) -> bool:
        return all(part.count(self.mark) == self._marks.get(name, 0) for name, part in parts.items())

    def _context(self, attributes: Mapping[str, str], coupons: Mapping[str, Coupon]) -> dict[str, str]:
        """What the message may print. Raises RenderError."""
        context = {name: attributes[name] for name in self._attributes if name in attributes}
        if not context.keys() >= self.names.required:
            raise RenderError(f"the recipient lacks the attribute {_listed(self.names.required - context.keys())}")
        if not coupons.keys() >= self._lists:
            raise RenderError(
                f"the recipient has neither code nor text of list {_listed(self._lists - coupons.keys())}"
            )
        if not _is_unicode("".join(context.values())):
            raise RenderError("an attribute of the recipient is not valid Unicode")
        if not _is_unicode("".join([coupon.text for coupon in coupons.values()])):
            raise RenderError("a coupon of the recipient is not valid Unicode")
        return context

    def _render(self, part: str, context: dict[str, str]) -> str:
        try:
            return self._engine.render_template(part, **context)
        except minijinja.TemplateError as error:
            reason = f"{part}, line {error.line}: {error.kind}"
        raise RenderError(reason)  # out here and so without a chain: the engine's own words may quote values


def _compile_problems(parts: Parts) -> list[str]:
    """The engine's own word: where the two syntaxes differ, both must take the message."""
    engine = _engine()
    problems = []
    for part, source in parts.by_name().items():
        try:
            engine.add_template(part, source)
        except minijinja.TemplateError as error:
            problems.append(problem_line(part, error.line or 1, error.detail or error.kind))
    return problems


def _engine() -> minijinja.Environment:
    engine = minijinja.Environment(
        undefined_behavior="strict",
        auto_escape_callback=lambda part: part == "html",
        keep_trailing_newline=True,
        fuel=FUEL,
        debug=False,  # in debug mode an error holds all values
        pycompat=False,
    )
    for name in engine.globals:
        engine.remove_global(name)  # a missing attribute called "range" would else print a function
    return engine


def _with_one_kind_of_line_break(parts: Parts) -> Parts:
    """Jinja2 reads a source so, and MIME text has no other; a mail's line breaks are set when it is written."""
    found = {name: part.replace("\r\n", "\n").replace("\r", "\n") for name, part in parts.by_name().items()}
    return Parts(found["subject"], found.get("text"), found.get("html"))


def _one_line(subject: str) -> str:
    if not subject.isprintable() or "  " in subject:  # seldom, and the expression takes as long as all else here
        subject = _IN_SUBJECT_A_SPACE.sub(" ", subject)
    return subject.strip(" ")


def _check_rendered(rendered: Parts, coupons: Mapping[str, Coupon], *, mark: str = "", further: int = 0) -> None:
    """`mark` stands in the rendered parts, but is no part of the mail; `further` characters are one."""
    if len(rendered.subject) + len(rendered.text or "") + len(rendered.html or "") + further > MAX_RENDERED:
        raise RenderError(f"the mail is longer than {MAX_RENDERED} characters")
    for name, coupon in coupons.items():
        if not coupon.is_code:
            continue
        searched = _without(mark, rendered) if coupon.text in mark else rendered  # a code may be as short as "7f"
        if not _prints(searched, coupon.text):
            raise RenderError(f"the mail does not print the code of list {name}")


def _without(mark: str, rendered: Parts) -> Parts:
    text, html = (part and part.replace(mark, "\n") for part in (rendered.text, rendered.html))
    return Parts(rendered.subject, text, html)


def _prints(rendered: Parts, code: str) -> bool:
    """Whether text or HTML hold the code: as it is, escaped, or percent-encoded in a link."""
    text, html = rendered.text or "", rendered.html or ""
    if code in text or (code if code.isalnum() else code.translate(_ESCAPES)) in html:
        return True
    link = quote(code).replace("~", "%7E")  # as MiniJinja does
    return link in text or link.translate(_ESCAPES) in html


def _is_unicode(text: str) -> bool:
    """Whether `text` is free of lone surrogates, which MiniJinja would replace without a word."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
