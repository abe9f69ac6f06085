"""Rendering of messages. `names_of` returns the names that a message uses; `Template` renders each recipient's mail.

`Template.lists_for` finds the lists whose codes a mail needs, before it is rendered. `Template.render` renders a whole
mail and reports the line of an error. `Template.render_varying` renders only the chunks that vary between recipients.
The constant chunks are the same in every mail and are encoded once.
"""

import re
import secrets
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import quote

import minijinja

from coupons.attributes import RESERVED
from coupons.errors import UserError
from coupons.templates.analysis import Analyzer, list_key, problem_line, split_chunks
from coupons.templates.engine import new_engine
from coupons.templates.hints import hint
from coupons.templates.needs import CouponNeeds
from coupons.templates.sendable import sendability_problems

MAX_RENDERED = 1 << 20  # characters in all parts of one mail

T = TypeVar("T")

_UNMAILABLE = re.compile("[\0\ud800-\udfff]")  # not allowed in UTF-8 or in text of the database
_SPACE_IN_SUBJECT = re.compile(r"[\x00-\x20\x7f-\x9f\u2028\u2029]+")
_ESCAPES = str.maketrans(  # as MiniJinja escapes
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#x27;", "/": "&#x2f;"}
)


class TemplateError(UserError):
    """A message is invalid. `problems` and the text have one line for each reason."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class RenderError(UserError):
    """A message cannot be rendered for one recipient. The text never contains a code or an attribute's value."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a message, or of a rendered mail. One of text and HTML may be missing."""

    subject: str
    text: str | None
    html: str | None

    def by_name(self) -> dict[str, str]:
        parts = {"subject": self.subject, "text": self.text, "html": self.html}
        return {name: part for name, part in parts.items() if part is not None}


@dataclass(frozen=True, slots=True)
class RenderedMail(Parts):
    """The parts of a rendered mail. `unused` are lists whose code the recipient has, but the mail does not print."""

    unused: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Names:
    """The names in a message: lists in the order of their first use, required attributes, optional attributes."""

    lists: tuple[str, ...]
    required: frozenset[str]
    optional: frozenset[str]


@dataclass(frozen=True, slots=True)
class Coupon:
    """The output of `coupon("…")` for one recipient: the recipient's code, or the list's alternative text."""

    text: str
    is_code: bool

    def __repr__(self) -> str:
        return f"Coupon(is_code={self.is_code})"  # a traceback with values must not reveal a code


def names_of(parts: Parts) -> Names:
    """The names in `parts`. Raises TemplateError with all problems of all parts."""
    analyzer = Analyzer(reserved=RESERVED)
    for part, source in parts.by_name().items():
        if found := _UNMAILABLE.search(source):
            line = source.count("\n", 0, found.start()) + 1
            analyzer.problems.append(problem_line(part, line, f"the character {found[0]!a} cannot be mailed"))
        else:
            analyzer.analyze(part, source)
    problems = analyzer.problems or _compile_problems(parts)
    if parts.text is None and parts.html is None:
        problems.append("a message needs a text or an HTML part")
    if not parts.subject.strip():
        problems.append("a message needs a subject")
    if problems:
        raise TemplateError(problems)
    return Names(tuple(analyzer.lists), frozenset(analyzer.required), frozenset(analyzer.mentioned - analyzer.required))


def check_sendable(parts: Parts) -> None:
    """Check that each coupon of a message can have a code and that no expression always fails.

    `parts` must have no problems. Only a message that is saved or mailed for the first time is checked: a running
    sendout continues. Raises TemplateError with all problems.
    """
    if problems := sendability_problems(parts.by_name(), most_characters=MAX_RENDERED):
        raise TemplateError(problems)


class Template:
    """A message, compiled once and rendered for one recipient after another (not thread-safe).

    `chunks` contains text and HTML, split into constant and varying chunks. `mark` is the line before each rendered
    varying chunk. The mark is random, so that no value and no message can contain it.
    """

    def __init__(self, parts: Parts) -> None:
        """Compile a message. Raises TemplateError as `names_of` does."""
        self.names = names_of(parts)
        self.parts = _normalize_line_breaks(parts)
        self.mark = f"{secrets.token_hex(16)}\n"
        self.chunks = {name: split_chunks(source) for name, source in self.parts.by_name().items() if name != "subject"}
        self._marks = {name: sum(chunk.varies for chunk in chunks) for name, chunks in self.chunks.items()}
        self._same_length = sum(
            -len(self.mark) if chunk.varies else len(chunk.source) for each in self.chunks.values() for chunk in each
        )
        self._between_parts = f"{secrets.token_hex(16)}\n"
        self._attributes = self.names.required | self.names.optional
        self._lists = frozenset(self.names.lists)
        self._needs = CouponNeeds(self.parts.by_name().values(), self.names.lists)
        self._coupons: Mapping[str, Coupon] = {}
        self._has: frozenset[str] = frozenset()
        self._printed: set[str] = set()
        self._asked: set[str] = set()
        self._engine = new_engine()
        for part, source in self.parts.by_name().items():
            self._engine.add_template(part, source)
        self._engine.add_template("varying", self._varying_source())
        # These two functions read the coupons of the current mail: rendering the varying chunks (subject, text, HTML)
        # takes 2.1 µs. With coupons rewritten to plain variables, it would take 1.3 µs, but need a second parser. With
        # coupons that the engine passes to the functions (`pass_state`), it would take 3.0 µs.
        if self._needs.conditional:
            self._engine.add_global("coupon", self._coupon)
            self._engine.add_global("has_coupon", self._has_coupon)
        else:
            self._engine.add_global("coupon", lambda name: self._coupons[list_key(name)].text)
            self._engine.add_global("has_coupon", lambda name: self._coupons[list_key(name)].is_code)

    @property
    def deciding_attributes(self) -> tuple[str, ...]:
        """The attributes that decide which lists a mail needs. If there are none, each mail needs all lists.

        This relies on `check_sendable`, which rejects a coupon that only a false `has_coupon` would print. `lists_for`
        would leave its list out.
        """
        return self._needs.attributes

    def lists_for(self, attributes: Mapping[str, str]) -> frozenset[str]:
        """The lists whose coupons the mail of a recipient with these attributes prints, if it gets a code of each.

        Raises RenderError if a condition cannot be evaluated, as `render` does then.
        """
        try:
            return self._needs.find(attributes)
        except minijinja.TemplateError as error:
            reason = f"a condition with {', '.join(self.deciding_attributes)} cannot be evaluated: {error.kind}"
        raise RenderError(reason)  # not chained: the engine's message may quote values

    def render(self, attributes: Mapping[str, str], coupons: Mapping[str, Coupon]) -> RenderedMail:
        """The mail of a recipient with these attributes and these coupons by list name.

        `coupons` are those of the lists that the mail needs, as `lists_for` returns them. Values in the HTML are
        escaped; the subject is one line.

        Raises RenderError if a required attribute is missing, if the mail prints a coupon that is not in `coupons`, if
        it is too long, or if a code that it prints is in neither subject, text nor HTML.
        """
        context = self._context(attributes, coupons)

        def whole() -> Parts:
            return Parts(
                subject=_one_line(self._render("subject", context)),
                text=None if self.parts.text is None else self._render("text", context),
                html=None if self.parts.html is None else self._render("html", context),
            )

        rendered, unused = self._with_coupons(coupons, whole)
        _check_rendered(rendered, coupons, unused)
        return RenderedMail(rendered.subject, rendered.text, rendered.html, unused)

    def render_varying(self, attributes: Mapping[str, str], coupons: Mapping[str, Coupon]) -> RenderedMail:
        """Render a mail like `render`, but only the varying chunks of text and HTML, with `mark` before each chunk.

        Raises RenderError as `render` does. Each code must be in the subject or in one of these chunks.
        """
        context = self._context(attributes, coupons)
        pieces: list[str] = []
        unused: frozenset[str] = frozenset()
        with suppress(minijinja.TemplateError):  # one call for all parts: 2.1 µs; one call per part: 3.2 µs
            rendered, unused = self._with_coupons(coupons, lambda: self._engine.render_template("varying", **context))
            pieces = rendered.split(self._between_parts)
        if len(pieces) != 4 or not self._is_marked(text=pieces[1], html=pieces[2]):
            self.render(attributes, coupons)  # raises an error that contains part and line
            raise RenderError("the mail cannot be assembled")
        mail = RenderedMail(
            subject=_one_line(pieces[0]),
            text=None if self.parts.text is None else pieces[1],
            html=None if self.parts.html is None else pieces[2],
            unused=unused,
        )
        _check_rendered(mail, coupons, unused, mark=self.mark, further=self._same_length)
        return mail

    def preview_coupons(self, attributes: Mapping[str, str], texts: Mapping[str, str]) -> dict[str, Coupon]:
        """The coupons of a preview: for each list that the mail needs, its preview text in place of a code.

        A preview is checked as a mail with codes is. Raises RenderError as `lists_for` does.
        """
        return {name: Coupon(texts[name], is_code=True) for name in sorted(self.lists_for(attributes))}

    # --- coupons of the current mail ----------------------------------------------------------------------------------

    def _with_coupons(self, coupons: Mapping[str, Coupon], render: Callable[[], T]) -> tuple[T, frozenset[str]]:
        """Render a mail; return it and the lists of those codes that it does not print.

        The functions of the engine see these coupons only during this call, so no later mail can.
        """
        self._coupons = coupons
        try:
            return self._without_unused(render) if self._needs.conditional else (render(), frozenset())
        finally:
            self._coupons = {}

    def _without_unused(self, render: Callable[[], T]) -> tuple[T, frozenset[str]]:
        """Render with the largest consistent set of the codes, as coupons/templates/needs.py defines it.

        So it is the same mail when it is rendered again after its unused codes have been returned to their lists.
        """
        codes = self._has = frozenset([name for name, coupon in self._coupons.items() if coupon.is_code])
        while True:
            self._asked.clear()
            self._printed.clear()
            rendered = render()
            if self._asked <= self._printed:
                break
            self._has &= self._printed
        if not self._printed.isdisjoint(codes - self._has):
            raise RenderError("the mail prints a code only if the recipient does not have it")
        return rendered, codes - self._printed

    def _coupon(self, name: str) -> str:
        key = list_key(name)
        if key not in self._coupons:
            raise RenderError(f"the mail prints a coupon of list {key}, but the recipient has no code or text of it")
        self._printed.add(key)
        return self._coupons[key].text

    def _has_coupon(self, name: str) -> bool:
        key = list_key(name)
        if key not in self._has:
            return False
        self._asked.add(key)
        return True

    # --- parts --------------------------------------------------------------------------------------------------------

    def _varying_source(self) -> str:
        varying = {
            # The empty comment protects the line break of the mark from a tag that trims white space, `{{- name }}`.
            name: "".join(f"{self.mark}{{##}}{chunk.source}" for chunk in chunks if chunk.varies)
            for name, chunks in self.chunks.items()
        }
        html = f"{{% autoescape 'html' %}}{varying.get('html', '')}"
        # A part must not directly precede a tag: it may end with "{".
        return self._between_parts.join((self.parts.subject, varying.get("text", ""), html, "{% endautoescape %}"))

    def _is_marked(self, **parts: str) -> bool:
        return all(part.count(self.mark) == self._marks.get(name, 0) for name, part in parts.items())

    def _context(self, attributes: Mapping[str, str], coupons: Mapping[str, Coupon]) -> dict[str, str]:
        """The values that the message may print. Raises RenderError."""
        context = {name: attributes[name] for name in self._attributes if name in attributes}
        if not context.keys() >= self.names.required:
            raise RenderError(f"the recipient lacks {_names('attribute', self.names.required - context.keys())}")
        if not (self._needs.conditional or coupons.keys() >= self._lists):
            raise RenderError(f"the recipient has no code or text of {_names('list', self._lists - coupons.keys())}")
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
        raise RenderError(reason)  # outside the handler, so it has no cause: the engine's message may quote values


def _compile_problems(parts: Parts) -> list[str]:
    """The problems that MiniJinja finds. Where its syntax and Jinja2's differ, both must accept the message."""
    engine = new_engine()
    problems = []
    for part, source in parts.by_name().items():
        try:
            engine.add_template(part, source)
        except minijinja.TemplateError as error:
            line = error.line or 1
            problems.append(problem_line(part, line, f"{error.detail or error.kind}{hint(source, line)}"))
    return problems


def _normalize_line_breaks(parts: Parts) -> Parts:
    """Replace all line breaks by newlines, as Jinja2 does. They become CRLF when a mail is written."""
    found = {name: part.replace("\r\n", "\n").replace("\r", "\n") for name, part in parts.by_name().items()}
    return Parts(found["subject"], found.get("text"), found.get("html"))


def _one_line(subject: str) -> str:
    if not subject.isprintable() or "  " in subject:  # rare; the expression takes as long as the rest of this function
        subject = _SPACE_IN_SUBJECT.sub(" ", subject)
    return subject.strip(" ")


def _check_rendered(
    rendered: Parts, coupons: Mapping[str, Coupon], unused: Collection[str], *, mark: str = "", further: int = 0
) -> None:
    """Check the length of the mail and that it contains its codes, except those of the lists `unused`.

    `mark` is in the rendered parts, but not in the mail; `further` characters are in the mail only.
    """
    if len(rendered.subject) + len(rendered.text or "") + len(rendered.html or "") + further > MAX_RENDERED:
        raise RenderError(f"the mail is longer than {MAX_RENDERED} characters")
    for name, coupon in coupons.items():
        if not coupon.is_code or name in unused:
            continue
        searched = _without(mark, rendered) if coupon.text in mark else rendered  # a code can be as short as "7f"
        if not _prints(searched, coupon.text):
            raise RenderError(f"the mail does not print the code of list {name}")


def _without(mark: str, rendered: Parts) -> Parts:
    text, html = (part and part.replace(mark, "\n") for part in (rendered.text, rendered.html))
    return Parts(rendered.subject, text, html)


def _prints(rendered: Parts, code: str) -> bool:
    """Whether subject, text or HTML contains the code: unchanged, escaped, or percent-encoded in a link."""
    text, html = rendered.text or "", rendered.html or ""
    if code in text or code in rendered.subject or (code if code.isalnum() else code.translate(_ESCAPES)) in html:
        return True
    link = quote(code).replace("~", "%7E")  # like MiniJinja
    return link in text or link in rendered.subject or link.translate(_ESCAPES) in html


def _is_unicode(text: str) -> bool:
    """Whether `text` is free of lone surrogates, which MiniJinja would replace silently."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _names(noun: str, names: Collection[str]) -> str:
    return f"{noun}{'s' * (len(names) > 1)} {', '.join(sorted(names))}"
