from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coupons.attributes import RESERVED
from coupons.templates.rendering import (
    MAX_RENDERED,
    Coupon,
    Names,
    Parts,
    RenderedMail,
    RenderError,
    Template,
    TemplateError,
    names_of,
)

SPRING = Coupon("SPRING-1", is_code=True)
SORRY = Coupon("Sorry, all gone & over", is_code=False)


def read(text: str) -> Names:
    return names_of(Parts("A voucher", text, None))


def render(text: str, attributes: dict[str, str] | None = None, **coupons: Coupon) -> str | None:
    return Template(Parts("A voucher", text, None)).render(attributes or {}, coupons).text


# --- names in a message ----------------------------------------------------------------------------------------------


def test_lists_are_named_once_in_the_order_of_first_use() -> None:
    """Lists in every part and condition count. Their names are compared without case and surrounding spaces."""
    parts = Parts(
        subject='{% if has_coupon("Second") %}Two vouchers{% endif %}',
        text='{{ coupon("first") }} {{ coupon( " SECOND " ) }}',
        html='<a href="https://shop.example/?code={{ coupon("third")|urlencode }}">{{ coupon("first") }}</a>',
    )
    assert names_of(parts).lists == ("second", "first", "third")


@pytest.mark.parametrize(
    ("text", "required", "optional"),
    [
        ("{{ a }}", "a", ""),
        ("{{ a|upper }} {{ b|default(c) }}", "a c", "b"),
        ('{{ a|d("x")|title }}', "", "a"),
        ('{{ a|title|d("x") }}', "a", ""),
        ('{{ a|d("x") }} {{ a }}', "a", ""),
        ("{% if a is defined %}{{ a }}{% endif %}", "", "a"),
        ("{% if a is defined %}{{ a }}{% endif %}{{ a }}", "a", ""),
        ("{% if a is undefined %}{{ a }}{% else %}{{ b }}{% endif %}", "a b", ""),
        ("{% if a is not defined %}-{% elif a == 'x' %}{{ a }}{% else %}{{ a }}{% endif %}", "", "a"),
        ("{% if a is defined and a and b is defined %}{{ a }}{{ b }}{% else %}{{ b }}{% endif %}", "b", "a"),
        ("{% if a is undefined or b is undefined %}-{% else %}{{ a }}{{ b }}{% endif %}", "", "a b"),
        ("{% if a is defined or b is defined %}{{ a }}{% endif %}", "a", "b"),
        ("{{ a if a is defined else b }}", "b", "a"),
        ('{{ "a" ~ b }}', "b", ""),
        ('{{ a in ["x", b] }} {{ c|length > 3 and not d }}', "a b c d", ""),
        ("{# {{ a }} #}{% raw %}{{ b }}{% endraw %}{{ '{{ c }}' }}", "", ""),
        ("{% if true %}{% if a is defined %}{% if b %}{{ a }}{% endif %}{% endif %}{% endif %}", "b", "a"),
    ],
)
def test_an_attribute_is_required_unless_its_absence_is_handled(text: str, required: str, optional: str) -> None:
    """An attribute is optional if it has a `default` or occurs only inside a block that tests `is defined`."""
    assert read(text) == Names((), frozenset(required.split()), frozenset(optional.split()))


def test_a_coupon_in_a_string_or_comment_names_no_list() -> None:
    """Text that resembles a call of `coupon` is treated as text."""
    assert read("""{{ "coupon('spring')" }} {# {{ coupon("summer") }} #} coupon("autumn")""").lists == ()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{{ coupon(first_name) }}", 'coupon(…) needs one list name in quotes: coupon("spring-10")'),
        ("{{ coupon() }}", 'coupon(…) needs one list name in quotes: coupon("spring-10")'),
        ('{{ coupon("a", "b") }}', 'coupon(…) needs one list name in quotes: coupon("spring-10")'),
        ('{{ coupon("  ") }}', 'coupon(…) needs one list name in quotes: coupon("spring-10")'),
        (
            "{{ has_coupon('a' ~ 'b') }}",
            'has_coupon(…) needs one list name in quotes: has_coupon("spring-10")',
        ),
        ("{{ coupon('a')|upper }}", "coupon(…) can only be printed, directly or with urlencode"),
        (
            "{% if coupon('a') == 'x' %}{% endif %}",
            "coupon(…) can only be printed, directly or with urlencode",
        ),
        ("{{ a if coupon('a') else b }}", "coupon(…) can only be printed, directly or with urlencode"),
        ("{{ coupon }}", '"coupon" cannot be used as an attribute'),
        ("{{ self }}", '"self" cannot be used as an attribute'),
        ("{{ a.b }}", '".b" is not supported'),
        ("{{ a['b'] }}", '"[…]" is not supported'),
        ("{{ a.upper() }}", '"call" is not supported'),
        ("{{ range(9) }}", '"range(…)" is not supported'),
        ("{{ debug() }}", '"debug(…)" is not supported'),
        ("{{ a * 1000000000 }}", '"*" is not supported'),
        ("{{ a is string }}", '"is string" is not supported'),
        ("{{ a|safe }}", 'filter "safe" is not supported'),
        ("{{ a|upper(1) }}", 'filter "upper" accepts no arguments'),
        ("{{ a|default(value='x') }}", 'filter "default" accepts at most 2 positional arguments'),
        ("{% for a in b %}{% endfor %}", '"for" is not supported'),
        ("{% set a = 1 %}", '"set" is not supported'),
        ("{% set a %}{% endset %}", '"set" is not supported'),
        ("{% macro a() %}{% endmacro %}", '"macro" is not supported'),
        ("{% call a() %}{% endcall %}", '"call" is not supported'),
        ("{% filter upper %}{% endfilter %}", '"filter" is not supported'),
        ("{% with a = 1 %}{% endwith %}", '"with" is not supported'),
        ("{% block a %}{% endblock %}", '"block" is not supported'),
        ("{% autoescape false %}{% endautoescape %}", '"autoescape" is not supported'),
        ("{% include '/etc/passwd' %}", '"include" is not supported'),
        ("{% import 'a' as b %}", '"import" is not supported'),
        ("{% from 'a' import b %}", '"from" is not supported'),
        ("{% extends 'a' %}", '"extends" is not supported'),
        ("{{ a b }}", "expected token 'end of print statement', got 'b'; write {{ a_b }}"),
        ("{% foo %}", "Encountered unknown tag 'foo'."),
        ("{{ " + "(" * 5_000 + "a" + ")" * 5_000 + " }}", "nested too deeply"),
    ],
)
def test_unsupported_syntax_is_rejected_by_name(text: str, reason: str) -> None:
    """When the message is saved, one line tells the marketer where the unsupported syntax is and why it is rejected."""
    with pytest.raises(TemplateError) as caught:
        read(f"Hello,\n\n{text}")
    line = 1 if reason == "nested too deeply" else 3
    assert caught.value.problems == (f"text, line {line}: {reason}",)


def test_all_problems_are_reported_at_once() -> None:
    """An error reports all problems of all parts, each in one line."""
    with pytest.raises(TemplateError) as caught:
        names_of(Parts(" ", "{{ a.b }}\n{{ coupon(c) }}", "<p>\n{{ a b }}\x1b[31m"))
    assert str(caught.value).splitlines() == [
        'text, line 1: ".b" is not supported',
        'text, line 2: coupon(…) needs one list name in quotes: coupon("spring-10")',
        "html, line 2: expected token 'end of print statement', got 'b'; write {{ a_b }}",
        "a message needs a subject",
    ]


def test_a_message_without_a_body_is_rejected() -> None:
    """A message without a body is rejected, because it could not contain a code."""
    with pytest.raises(TemplateError, match="a message needs a text or an HTML part"):
        names_of(Parts("A voucher", None, None))


def test_syntax_that_only_one_parser_accepts_is_rejected() -> None:
    """A message is not saved if Jinja2 accepts a number in it, but the rendering engine does not."""
    with pytest.raises(TemplateError, match="text, line 2: "):
        read("\n{{ 99999999999999999999999999999999999999999999 }}")


@pytest.mark.parametrize("name", sorted(RESERVED - {"true", "false", "none", "True", "False", "None", "not"}))
def test_a_reserved_name_is_not_an_attribute(name: str) -> None:
    """An attribute cannot replace a part of the template language."""
    with pytest.raises(TemplateError):
        read("{{ %s }}" % name)  # noqa: UP031 the braces belong to the template


# --- rendering -------------------------------------------------------------------------------------------------------


def test_a_code_is_printed_in_every_place() -> None:
    """A list gives the same code everywhere in a mail."""
    assert render('{{ coupon("spring") }}, again {{ coupon("SPRING") }}', spring=SPRING) == "SPRING-1, again SPRING-1"


def test_the_alternative_text_replaces_a_missing_code() -> None:
    """Without a code, `coupon` prints the alternative text, and the message can test whether there is a code."""
    text = '{% if has_coupon("spring") %}Your code: {% endif %}{{ coupon("spring") }}'
    assert render(text, spring=SPRING) == "Your code: SPRING-1"
    assert render(text, spring=SORRY) == "Sorry, all gone & over"


def test_html_is_escaped_text_is_not() -> None:
    """Neither an attribute nor a coupon can add markup to a mail."""
    source = '{{ name }} {{ coupon("spring") }} {{ nick|default("<none>") }}'
    parts = Template(Parts("{{ name }}", source, source)).render({"name": "<b>&"}, {"spring": SORRY})
    assert parts.subject == "<b>&"
    assert parts.text == "<b>& Sorry, all gone & over <none>"
    assert parts.html == "&lt;b&gt;&amp; Sorry, all gone &amp; over &lt;none&gt;"


@given(st.text(max_size=20))
def test_a_subject_is_one_line_with_any_value(name: str) -> None:
    """A line break in an attribute cannot start a new header."""
    try:
        subject = Template(Parts("Dear {{ name }}\n", "x", None)).render({"name": name}, {}).subject
    except RenderError:
        assert any("\ud800" <= character <= "\udfff" for character in name)
    else:
        assert len(subject.splitlines()) == 1
        assert subject == subject.strip(" ")
        assert not any(character < " " or "\x7f" <= character <= "\x9f" for character in subject)


def test_all_line_breaks_of_the_source_are_kept() -> None:
    """Rendering removes no line break from the source."""
    assert render("Hello\n\n{% if true %}\n you{% endif %}\n") == "Hello\n\n\n you\n"


@pytest.mark.parametrize(
    ("text", "attributes", "coupons", "reason"),
    [
        ("{{ b }} {{ a }}", {}, {}, "the recipient lacks attributes a, b"),
        ('{{ coupon("spring") }}', {}, {}, "the recipient has no code or text of list spring"),
        ("{{ a }}", {"a": "x" * MAX_RENDERED}, {}, f"the mail is longer than {MAX_RENDERED} characters"),
        ("{{ a }}", {"a": "\ud800"}, {}, "an attribute of the recipient is not valid Unicode"),
        ('{{ coupon("spring") }}', {}, {"spring": Coupon("\udfff", is_code=True)}, "a coupon of the recipient is not"),
        ("\n{{ a|int }}", {"a": "SECRET"}, {}, "text, line 2: InvalidOperation"),
        ('{% if has_coupon("spring") %}{% endif %}', {}, {"spring": SPRING}, "does not print the code of list spring"),
        ("none", {}, {"spring": SPRING}, "the mail does not print the code of list spring"),
    ],
)
def test_an_incomplete_mail_is_an_error(
    text: str, attributes: dict[str, str], coupons: dict[str, Coupon], reason: str
) -> None:
    """A mail that lacks a code or a value is not rendered, and the error contains neither values nor codes."""
    with pytest.raises(RenderError, match=reason) as caught:
        Template(Parts("A voucher", text, None)).render(attributes, coupons)
    assert caught.value.__context__ is None
    assert "SECRET" not in str(caught.value)
    assert "SPRING-1" not in str(caught.value)


def test_a_code_in_the_subject_counts_as_printed() -> None:
    """A mail may print its code only in the subject, unless the subject changes the code."""
    template = Template(Parts('{{ coupon("spring") }}', "Hello", None))
    for render_it in (template.render, template.render_varying):
        assert render_it({}, {"spring": SPRING}).subject == "SPRING-1"
        with pytest.raises(RenderError, match="does not print the code"):
            render_it({}, {"spring": Coupon("A  B", is_code=True)})  # a subject has no two adjacent blanks


def test_coupons_do_not_leak_to_the_next_recipient() -> None:
    """Each mail contains its own recipient's code."""
    template = Template(Parts("A voucher", '{{ coupon("spring") }}', None))
    mails = [template.render({}, {"spring": Coupon(f"CODE-{number}", is_code=True)}).text for number in range(100)]
    assert mails == [f"CODE-{number}" for number in range(100)]


def test_the_repr_of_a_coupon_hides_its_code() -> None:
    """Tracebacks and debug output show no code."""
    assert "SPRING-1" not in repr(SPRING)


CODES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30)


@given(CODES | st.text(st.sampled_from("""ab1-%&<>"'/+ äß€"""), min_size=1))
def test_a_printed_code_is_recognized_in_every_form(code: str) -> None:
    """A code counts as printed if it is escaped for HTML, encoded for a link, or both."""
    coupons = {"spring": Coupon(code, is_code=True)}
    link = '<a href="?c={{ coupon("spring")|urlencode }}">redeem</a>'
    plain = Template(Parts("A voucher", None, '<b>{{ coupon("spring") }}</b>')).render({}, coupons)
    linked = Template(Parts("A voucher", link, link)).render({}, coupons)
    html_only = Template(Parts("A voucher", "-", link)).render({}, coupons)
    assert plain.html is not None
    assert linked.text == f'<a href="?c={quote(code).replace("~", "%7E")}">redeem</a>'
    assert html_only.html == linked.html


NAMES = st.sampled_from("abc")
TESTS = st.recursive(
    st.builds("{} is {}defined".format, NAMES, st.sampled_from(["", "not ", "un"])) | NAMES.map("{} == 'x'".format),
    lambda test: (
        st.builds("({} {} {})".format, test, st.sampled_from(["and", "or"]), test) | test.map("(not {})".format)
    ),
    max_leaves=5,
)
SOURCES = st.recursive(
    NAMES.map("{{{{ {} }}}}".format) | NAMES.map('{{{{ {}|default("z") }}}}'.format),
    lambda source: (
        st.builds(
            "{{% if {} %}}{}{{% elif {} %}}{}{{% else %}}{}{{% endif %}}".format, TESTS, source, TESTS, source, source
        )
        | st.builds("{}{}".format, source, source)
        | st.builds("{{{{ {} if {} else {} }}}}".format, NAMES, TESTS, NAMES)
    ),
    max_leaves=8,
)


@given(SOURCES, st.sets(NAMES))
def test_the_required_attributes_are_always_sufficient(source: str, extra: set[str]) -> None:
    """Rendering never fails for lack of an attribute if the recipient has all attributes that the message requires."""
    names = read(source)
    assert names.required | names.optional <= set("abc")
    given_attributes = names.required | extra
    render(source, dict.fromkeys(given_attributes, "x"))


def test_only_varying_chunks_are_rendered_with_their_marks() -> None:
    """Constant chunks of text are not rendered again, and the subject is rendered as a whole."""
    template = Template(Parts("Dear {{ a }}", "Hello\n{{ a }}\nbye\n{{ a }}", "<p>\n<b>{{ a }}</b>\n</p>"))
    varying = template.render_varying({"a": "A&B"}, {})
    mark = template.mark
    assert varying == RenderedMail("Dear A&B", f"{mark}A&B\n{mark}A&B", f"{mark}<b>A&amp;B</b>\n")
    assert Template(Parts("Hello", None, "<p>")).render_varying({}, {}) == RenderedMail("Hello", None, "")


def test_a_mark_is_not_mistaken_for_a_code() -> None:
    """A code that is not printed is detected even if the mark of its place, made of letters and digits, contains it."""
    template = Template(Parts("s", "{{ a }}", "{{ a }}"))
    for code in (template.mark[:1], template.mark[:2], template.mark.strip()):
        with pytest.raises(RenderError, match="does not print the code of list spring"):
            template.render_varying({"a": "x"}, {"spring": Coupon(code, is_code=True)})


@settings(deadline=None)  # renders megabytes
@given(st.integers(-40, 40), st.sampled_from(["", "{{ a }}\n"]))
def test_the_length_limit_counts_the_mail(above: int, extra: str) -> None:
    """Rendering as a whole and rendering in chunks agree on the length limit to the character."""
    template = Template(Parts("s", f"same\n{extra}same\n{{{{ b }}}}", "<p>same\n{{ a }}\n"))
    attributes = {"a": "x", "b": ""}
    rest = sum(map(len, template.render(attributes, {}).by_name().values()))
    attributes["b"] = "x" * (MAX_RENDERED - rest + above)
    for render_it in (template.render, template.render_varying):
        if above > 0:
            with pytest.raises(RenderError, match="longer than"):
                render_it(attributes, {})
        else:
            render_it(attributes, {})


@pytest.mark.parametrize(
    ("attributes", "coupons", "reason"),
    [
        ({}, {"spring": SPRING}, "the recipient lacks attribute a"),
        ({"a": "1"}, {}, "the recipient has no code or text of list spring"),
        ({"a": "\ud800"}, {"spring": SPRING}, "an attribute of the recipient is not valid Unicode"),
        ({"a": "1"}, {"spring": Coupon("\udfff", is_code=True)}, "a coupon of the recipient is not"),
        ({"a": "SECRET"}, {"spring": SPRING}, "text, line 4: InvalidOperation"),
        ({"a": "1"}, {"spring": SPRING, "summer": SPRING}, ""),
        ({"a": "1"}, {"spring": SPRING, "summer": Coupon("2", is_code=True)}, "not print the code of list summer"),
    ],
)
def test_both_ways_of_rendering_reject_the_same_mails(
    attributes: dict[str, str], coupons: dict[str, Coupon], reason: str
) -> None:
    """Rendering as a whole and in chunks reject a mail for the same reasons, which contain no values."""
    template = Template(Parts("s", '2\n{{ coupon("spring") }}\n\n{{ a|int }}\n', None))
    if not reason:
        template.render_varying(attributes, coupons)
        return
    with pytest.raises(RenderError, match=reason) as caught:
        template.render_varying(attributes, coupons)
    assert caught.value.__context__ is None
    assert "SECRET" not in str(caught.value)
