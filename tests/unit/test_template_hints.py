"""Errors and warnings of messages name what the marketer probably meant."""

import pytest

from coupons.templates.hints import RAW, foreign_placeholders, suggestion
from coupons.templates.rendering import Parts, TemplateError, names_of


def problems(html: str) -> str:
    with pytest.raises(TemplateError) as caught:
        names_of(Parts("s", None, html))
    return str(caught.value)


@pytest.mark.parametrize(
    "html",
    [
        "<style>\na{#fff}\n</style>\n<p>{{ first_name }}</p>",
        "<style>a{{color:red}}</style>",
        "<STYLE type='text/css'>@media all{%x}</STYLE>",
        "<p>{{ first_name }}</p>\n<script>\nconst a = {{b: 1}};\n</script>",
        "<script>f({% a %})</script>",
        "<style>b{#unclosed",
        "<style>p{{color:red}}</style><p>hi {{ first_name }}</p>",
        "<style>p{color:{{ color }}} b{{x:y}}</style>{% if a %}{{ a }}{% endif %}",
        """<p>{{ a }}</p><a onclick="f({{a:1}})">{{ b }}</a>""",
        "<a style='{{color:red}}'>{{ b }}</a>",
    ],
)
def test_raw_is_named_when_css_or_javascript_looks_like_a_tag(html: str) -> None:
    """The error names `{% raw %}`. With it, the same CSS is accepted."""
    assert problems(html).endswith(RAW)


def test_raw_is_named_only_for_css_and_javascript() -> None:
    """An error in the text of a message has no such hint, and CSS between the tags is accepted."""
    assert "raw" not in problems("<style>a{}</style><p>{{ 1 + }}</p>")
    assert "raw" not in problems("<style>a{color: {{ color }}}</style><p style='{{ css | d }}'>{{ 1 + }}</p>")
    names_of(Parts("s", None, "<style>{% raw %}a{#fff}{% endraw %}</style>{{ first_name }}"))


@pytest.mark.parametrize(
    ("tag", "name"),
    [
        ("{{ First Name }}", "first_name"),
        ("{{First Name}}", "first_name"),
        ("{{ E-Mail }}", "e_mail"),
        ("{{ first-name }}", "first_name"),
        ("{{ Größe cm }}", "groesse_cm"),
    ],
)
def test_the_name_of_a_column_leads_to_the_name_of_its_attribute(tag: str, name: str) -> None:
    """`{{ First Name }}` is refused with "write first_name": that is the attribute of such a column."""
    found = problems(f"<p>\n{tag}\n</p>")
    assert found.startswith("html, line 2: ")
    assert found.endswith(f"; write {{{{ {name} }}}}")


def test_other_errors_have_no_hint() -> None:
    """Expressions of the language are not names of columns."""
    for tag in ("{{ a if }}", "{{ not }}", '{{ "x" y }}', "{{ a or }}"):
        assert "; write" not in problems(tag), tag
    assert suggestion("Vorname") == "vorname"
    assert suggestion("vorname") is None


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("{vorname}", "vorname"),
        ("*|FNAME|*", "fname"),
        ("%%First Name%%", "first_name"),
        ("[[name]]", "name"),
        ("${name}", "name"),
        ("${ first-name }", "first_name"),
    ],
)
def test_placeholders_of_other_systems_are_reported(text: str, name: str) -> None:
    """Such a placeholder is mailed as it is. The warning has its line and the placeholder that is meant."""
    assert foreign_placeholders({"subject": "s", "text": f"Dear\n{text},"}) == [
        f'text, line 2: "{text}" is mailed as it is; for an attribute write {{{{ {name} }}}}'
    ]


@pytest.mark.parametrize(
    ("part", "source"),
    [
        ("text", "Dear {{ first_name }}, {% if a %}{{ coupon('b') }}{% endif %} {# {note} #}"),
        ("text", "{% raw %}{vorname} [[x]]{% endraw %}"),
        ("text", "100 %% of 5 * | 3 [x] {1} {} $5 a[[1]] {{{a}}}"),
        ("html", "<style>a{color} b{x}</style><script>`${name}` [[a]]</script>"),
        ("html", """<a onclick="f({name})" style='{color}'>x</a>"""),
    ],
)
def test_our_tags_css_and_other_text_are_not_reported(part: str, source: str) -> None:
    """No warning for what is right: our own tags, CSS and JavaScript of the HTML, and brackets without a name."""
    assert foreign_placeholders({part: source}) == []
