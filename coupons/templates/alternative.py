"""The alternative text of a list: a template in the message language that may print attributes, but no coupons."""

from collections.abc import Mapping
from functools import cached_property

import minijinja

from coupons.attributes import RESERVED
from coupons.templates.analysis import Analyzer
from coupons.templates.engine import new_engine
from coupons.templates.hints import hint
from coupons.templates.rendering import RenderError, TemplateError
from coupons.templates.sendable import sendability_problems

PART = "alternative text"
MAX_CHARACTERS = 100_000


class AlternativeText:
    """An alternative text, compiled once and rendered for one recipient after another (not thread-safe).

    A text that is not a template, from before alternative texts were templates, is printed as it is.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        analyzer = Analyzer(reserved=RESERVED)
        analyzer.analyze(PART, text)
        self.problems = tuple(analyzer.problems or _problems(text, uses_coupons=bool(analyzer.lists)))
        self.required = frozenset[str]() if self.problems else frozenset(analyzer.required)
        self._mentioned = frozenset[str]() if self.problems else frozenset(analyzer.mentioned)

    def render(self, attributes: Mapping[str, str]) -> str:
        """The text for a recipient with these attributes, not escaped: the message escapes it in its HTML part.

        Raises RenderError if a required attribute is missing. Its text contains no value.
        """
        if not self._mentioned:
            return self._constant
        if lacking := self.required - attributes.keys():
            raise RenderError(f"the recipient lacks {', '.join(sorted(lacking))}, which the {PART} prints")
        return self._render({name: attributes[name] for name in self._mentioned if name in attributes})

    @cached_property
    def _constant(self) -> str:
        return self._text if self.problems else self._render({})

    @cached_property
    def _engine(self) -> minijinja.Environment:
        engine = new_engine()
        engine.add_template(PART, self._text)
        return engine

    def _render(self, values: dict[str, str]) -> str:
        try:
            return self._engine.render_template(PART, **values)
        except minijinja.TemplateError as error:
            reason = f"{PART}, line {error.line}: {error.kind}"
        raise RenderError(reason)  # not chained: the engine's message may quote values


def check_alternative_text(text: str) -> AlternativeText:
    """Return the compiled text. Raises TemplateError with all problems, one line each."""
    compiled = AlternativeText(text)
    if compiled.problems:
        raise TemplateError(compiled.problems)
    return compiled


def _problems(text: str, *, uses_coupons: bool) -> list[str]:
    if uses_coupons:
        return [f"{PART}: cannot use coupon(…) and has_coupon(…), because it is printed instead of a coupon"]
    try:
        new_engine().add_template(PART, text)
    except minijinja.TemplateError as error:
        line = error.line or 1
        return [f"{PART}, line {line}: {error.detail or error.kind}{hint(text, line)}"]
    return sendability_problems({PART: text}, most_characters=MAX_CHARACTERS)
