"""The lists whose coupons a mail prints, before and while it is rendered, and messages that can never be sent."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coupons.templates.rendering import Coupon, Parts, RenderError, Template, TemplateError, check_sendable

TIER = '{% if tier == "gold" %}{{ coupon("gold") }}{% else %}{{ coupon("basic") }}{% endif %}'
NESTED = """
{% if has_coupon("gold") %}{% if tier == "gold" %}{{ coupon("gold") }}{% endif %}{% endif %}
{% if has_coupon("gold") %}{{ coupon("extra") }}{% endif %}"""


def needs(text: str, attributes: dict[str, str], subject: str = "s", html: str | None = None) -> set[str]:
    return {*Template(Parts(subject, text, html)).lists_for(attributes)}


@pytest.mark.parametrize(
    ("text", "attributes", "lists"),
    [
        ('{{ coupon("a") }} {{ name ~ coupon("B") | urlencode }}', {}, "a b"),
        (TIER, {"tier": "gold"}, "gold"),
        (TIER, {"tier": "silver"}, "basic"),
        ('{{ coupon("a") if tier == "gold" else "sorry" }}', {"tier": "gold"}, "a"),
        ('{{ coupon("a") if tier == "gold" else "sorry" }}', {"tier": ""}, ""),
        ('{{ name ~ (coupon("a") if tier == "gold") }}{{ coupon("b") }}', {"name": "\U000f0000", "tier": "x"}, "b"),
        ('{% if a == "1" %}{{ coupon("x") }}{% elif b == "2" %}{{ coupon("y") }}{% endif %}', {"a": "", "b": "2"}, "y"),
        ('{% if a is defined %}{{ coupon("x") }}{% else %}{{ coupon("y") }}{% endif %}', {}, "y"),
        ('{% if a | default("9") | int > 5 %}{{ coupon("x") }}{% endif %}', {}, "x"),
        ('{% if a | default("9") | int > 5 %}{{ coupon("x") }}{% endif %}', {"a": "5"}, ""),
        ('{% if email == "ada@example.org" %}{{ coupon("x") }}{% endif %}', {"email": "ada@example.org"}, "x"),
        ('{% if has_coupon("x") %}{{ coupon("x") }}{% else %}sorry{% endif %}', {}, "x"),
        ('{% if tier == "gold" and has_coupon("x") %}{{ coupon("x") }}{% endif %}', {"tier": "gold"}, "x"),
        ('{% if tier == "gold" and has_coupon("x") %}{{ coupon("x") }}{% endif %}', {"tier": "silver"}, ""),
        (NESTED, {"tier": "gold"}, "gold extra"),
        (NESTED, {"tier": "silver"}, ""),
        ('{% if a == "1" %}{# {{ coupon("x") }} #}{% raw %}{{ coupon("y") }}{% endraw %}{% endif %}', {"a": "1"}, ""),
        ('{%- if a == "1" -%} {{- coupon ( "x" ) -}} {%- endif -%}', {"a": "1"}, "x"),
    ],
)
def test_a_mail_needs_the_lists_whose_coupons_it_prints(text: str, attributes: dict[str, str], lists: str) -> None:
    """Conditions on attributes are evaluated; `has_coupon` is true for each list that the mail prints."""
    assert needs(text, attributes) == {*lists.split()}


def test_needs_count_coupons_of_all_parts() -> None:
    """A coupon in the subject, the text or the HTML is a need."""
    subject, html = '{% if a == "1" %}{{ coupon("s") }}{% endif %}', '<p>{{ coupon("h") if a == "1" }}'
    assert needs('{{ coupon("t") }}', {"a": "1"}, subject, html) == {"s", "t", "h"}
    assert needs('{{ coupon("t") }}', {"a": "2"}, subject, html) == {"t"}


@pytest.mark.parametrize(
    ("text", "deciding"),
    [
        (TIER, "tier"),
        ('{{ first_name ~ coupon("a") }}{% if city == "Berlin" %}Moin{% endif %}', ""),
        ('{% if has_coupon("a") %}{{ coupon("a") }}{% else %}{{ first_name }}{% endif %}', ""),
        ('{% if a is defined %}{{ coupon("x") if b else c }}{% endif %}{% if d %}{{ e }}{% endif %}', "a b c"),
    ],
)
def test_only_conditions_around_coupons_decide(text: str, deciding: str) -> None:
    """Other conditions and values are not evaluated for each recipient."""
    assert Template(Parts("s", text, None)).deciding_attributes == tuple(deciding.split())


def test_a_condition_that_cannot_be_evaluated_is_an_error() -> None:
    """The error names the attribute and shows no value."""
    template = Template(Parts("s", '{% if points | int > 5 %}{{ coupon("x") }}{% endif %}', None))
    with pytest.raises(RenderError, match="a condition with points cannot be evaluated: InvalidOperation") as caught:
        template.lists_for({"points": "SECRET"})
    assert caught.value.__cause__ is None


def test_a_mail_never_prints_a_coupon_that_its_recipient_does_not_need() -> None:
    """A mail without its code is an error, not a mail with an empty place."""
    template = Template(Parts("s", TIER, None))
    for render in (template.render, template.render_varying):
        with pytest.raises(RenderError, match="prints a coupon of list gold, but the recipient has no code or text"):
            render({"tier": "gold"}, {"basic": Coupon("B-1", is_code=True)})


def test_unused_codes_are_reported() -> None:
    """A mail that does not print one of its codes is valid, and names the list."""
    text = '{% if has_coupon("a") and has_coupon("b") %}{{ coupon("a") }}{{ coupon("b") }}{% else %}Sorry{% endif %}'
    template = Template(Parts("s", text, None))
    coupons = {"a": Coupon("A-1", is_code=True), "b": Coupon("none left", is_code=False)}
    for render in (template.render, template.render_varying):
        assert render({}, coupons).unused == {"a"}
        assert render({}, {**coupons, "b": Coupon("B-1", is_code=True)}).unused == set()


def test_a_mail_is_the_same_after_its_unused_codes_are_returned() -> None:
    """`has_coupon` is false for a code that the mail does not print, so a resent mail equals the first one."""
    text = (
        '{% if has_coupon("c") %}{{ coupon("a") }}{{ coupon("c") }}{% endif %}'
        '{% if has_coupon("a") %}{{ coupon("b") }}{% else %}-{% endif %}'
    )
    template = Template(Parts("s", text, None))
    short = Coupon("none left", is_code=False)
    coupons = {"a": Coupon("A-1", is_code=True), "b": Coupon("B-1", is_code=True), "c": short}
    first = template.render({}, coupons)
    assert (first.text, first.unused) == ("-", frozenset({"a", "b"}))
    again = template.render({}, {name: each for name, each in coupons.items() if name not in first.unused})
    assert (again.text, again.unused) == ("-", frozenset())


# --- random messages -------------------------------------------------------------------------------------------------

NAMES = ("a", "b", "c")
LISTS = ("x", "y", "z")
VALUES = ("", "1", "2", "gold", "12", "\U000f0000")
CONDITIONS = st.recursive(
    st.one_of(
        st.builds("{} is defined".format, st.sampled_from(NAMES)),
        st.builds('{} | default("1") == "{}"'.format, st.sampled_from(NAMES), st.sampled_from(VALUES)),
        st.builds('{} | d("3") | int > {}'.format, st.sampled_from(NAMES), st.integers(0, 9)),
        st.builds('{} in ["1", "gold"]'.format, st.sampled_from(NAMES)),
        st.builds('has_coupon("{}")'.format, st.sampled_from(LISTS)),
        st.sampled_from(["true", "not false", "1 < 2 < 3", "-1 < 2"]),
    ),
    lambda inner: st.one_of(
        st.builds("{} and {}".format, inner, inner),
        st.builds("{} or {}".format, inner, inner),
        st.builds("not {}".format, inner),
        st.builds("({})".format, inner),
    ),
    max_leaves=4,
)
COUPONS = st.builds('coupon("{}")'.format, st.sampled_from(LISTS))
EXPRESSIONS = st.one_of(
    COUPONS,
    st.builds("{} | urlencode".format, COUPONS),
    st.builds('a | d("-") ~ {}'.format, COUPONS),
    st.builds('b | d("") ~ ({} if {} else c | d("."))'.format, COUPONS, CONDITIONS),
    st.builds("{} if {} else {}".format, COUPONS, CONDITIONS, COUPONS),
)
SOURCES = st.recursive(
    st.one_of(
        st.builds("{{{{ {} }}}}".format, EXPRESSIONS), st.sampled_from(["text\n", '{{ a | d("") }}', "{# {{ #}"])
    ),
    lambda inner: st.one_of(
        st.builds("{}{}".format, inner, inner),
        st.builds("{{% if {} %}}{}{{% endif %}}".format, CONDITIONS, inner),
        st.builds("{{% if {} %}}{}{{% else %}}{}{{% endif %}}".format, CONDITIONS, inner, inner),
        st.builds("{{%- if {} %}}{}{{% elif {} -%}}{}{{% endif %}}".format, CONDITIONS, inner, CONDITIONS, inner),
    ),
    max_leaves=8,
)
ATTRIBUTES = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(VALUES))


def code_of(name: str) -> Coupon:
    return Coupon(f"CODE-{name}-1", is_code=True)


@settings(max_examples=150, deadline=None)
@given(SOURCES, SOURCES, SOURCES, ATTRIBUTES, st.sets(st.sampled_from(LISTS)))
def test_a_mail_prints_exactly_the_coupons_that_it_needs(
    subject: str, text: str, html: str, attributes: dict[str, str], short: set[str]
) -> None:
    """With a code of each needed list, a mail prints all of them; with fewer codes, it prints no other coupon.

    This holds for each message that can be saved, with any attributes. The result is computed from the conditions, and
    compared with the rendered mail.
    """
    try:
        template = Template(Parts(f"s {subject}", text, html))
        check_sendable(template.parts)
    except TemplateError:
        return
    try:
        needed = template.lists_for(attributes)
    except RenderError:
        with pytest.raises(RenderError):
            template.render(attributes, {name: code_of(name) for name in LISTS})
        return
    if not attributes.keys() >= template.names.required:
        return
    coupons = {name: code_of(name) for name in needed}
    for render in (template.render, template.render_varying):
        try:
            mail = render(attributes, coupons)
        except RenderError as error:
            assert "InvalidOperation" in str(error)  # in a condition that decides about no coupon
            return
        everything = "".join(mail.by_name().values())
        assert mail.unused == set()
        assert {name for name in LISTS if code_of(name).text in everything} == needed

    # The same recipient, when codes of some lists are short.
    less = {name: Coupon("none left", is_code=False) if name in short else coupons[name] for name in needed}
    try:
        mail = template.render(attributes, less)
    except RenderError as error:
        assert "InvalidOperation" in str(error)
        return
    everything = "".join(mail.by_name().values())
    assert {name for name in LISTS if code_of(name).text in everything} == needed - short - mail.unused
    again = template.render(attributes, {name: each for name, each in less.items() if name not in mail.unused})
    assert (again.by_name(), again.unused) == (mail.by_name(), frozenset())


LOST = 'if has_coupon("x") is false, this prints coupon("{}"), but no code is reserved for it: print'


# --- messages that can never be sent ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            '{% if has_coupon("x") %}Hello{% endif %}{{ coupon("y") }}',
            'text, line 1: has_coupon("x") is always false, because no mail prints coupon("x")',
        ),
        (
            '\n{% if has_coupon("x") %}{{ coupon("x") }}{% else %}{{ coupon("y") }}{% endif %}',
            f"text, line 2: {LOST.format('y')} " + 'coupon("x") instead, which then is the alternative text of list x',
        ),
        (
            '{% if a and has_coupon("x") %}{{ coupon("x") }}{% elif b %}{{ coupon("y") }}{% endif %}',
            f"text, line 1: {LOST.format('y')} " + 'coupon("x") instead, which then is the alternative text of list x',
        ),
        (
            '{{ "yes" if has_coupon("x") else coupon("x") }}',
            f"text, line 1: {LOST.format('x')} " + "it in both cases",
        ),
        (
            '{% if not has_coupon("x") %}{{ coupon("x") }}{% endif %}',
            f"text, line 1: {LOST.format('x')} " + "it in both cases",
        ),
        (
            '{% if 1 > 2 %}{{ coupon("x") }}{% endif %}',
            'text, line 1: coupon("x") is never printed: its condition is constant',
        ),
        (
            '{% if "a" in "abc" and not false %}{% else %}{{ a }}\n{{ coupon("x") }}{% endif %}',
            'text, line 2: coupon("x") is never printed: its condition is constant',
        ),
        ('a\n{{ "abc" | int }}', "text, line 2: this always fails: invalid float literal"),
        ('{{ a if b > ("1" ~ "x") | int | float else "" }}', "text, line 1: this always fails: invalid float literal"),
        ("{{ 1 in 5 }}", "text, line 1: this always fails: cannot perform a containment check on this value"),
        ("x" * (1 << 20), "every mail is longer than 1048576 characters"),
    ],
)
def test_a_message_that_can_never_be_sent_is_rejected(text: str, problem: str) -> None:
    """Each reason is one line that contains the part, the line and the remedy."""
    with pytest.raises(TemplateError) as caught:
        check_sendable(Parts("s", text, None))
    assert caught.value.problems == (problem,)


@pytest.mark.parametrize(
    "text",
    [
        '{% if has_coupon("x") %}{{ coupon("x") }}{% else %}No luck: {{ coupon("x") }}{% endif %}',
        (
            '{% if has_coupon("x") and a %}A{{ coupon("x") }}{% elif has_coupon("x") %}B{{ coupon("x") }}{% else %}'
            '{{ coupon("x") }}{% endif %}'
        ),
        '{% if has_coupon("x") %}{% if a %}{{ coupon("x") }}{% else %}{{ coupon("x") }}{% endif %}{% endif %}',
        '{% if has_coupon("x") %}Hello{% else %}{{ coupon("x") }}{% endif %} {{ coupon("x") }}',
        '{% if not has_coupon("x") %}Sorry{% else %}{{ coupon("x") }}{% endif %}',
        '{% if a == "1" %}{{ coupon("x") }}{% else %}{{ coupon("y") }}{% endif %}{{ "yes" if has_coupon("y") }}',
        '{% if true %}{{ coupon("x") }}{% endif %}',
        '{{ "12" | int }}{{ "a" ~ 1 }}{{ ["a", 1] }}',
        "{% if a %}" + "x" * (1 << 20) + "{% endif %}",
        "{% if a %}{{ a }}" + '{% elif a == "x" %}{{ coupon("x") }}' * 900 + "{% endif %}",
    ],
)
def test_a_message_that_can_be_sent_is_accepted(text: str) -> None:
    """A condition with `has_coupon` may leave out coupons, but not print others."""
    check_sendable(Template(Parts("s", text, None)).parts)
