from metarl.reports.markup import Markup, details, element, joined, table
from tests.reports.pages import Page

HOSTILE = "</p><script>alert('x')</script>\x1b\u202e&\"'"


def test_text_and_attributes_are_escaped_and_control_characters_are_visible():
    page = Page(element("p", HOSTILE, title=HOSTILE).text)
    assert page.elements == [("p", {"title": page.text})]
    assert page.text == HOSTILE.replace("\x1b", r"\x1b").replace("\u202e", r"\u202e")


def test_markup_is_not_escaped_again():
    inner = element("b", "a & b")
    assert inner == Markup("<b>a &amp; b</b>")
    assert element("p", "<", inner).text == "<p>&lt;<b>a &amp; b</b></p>"
    assert joined([inner, "&"]).text == "<b>a &amp; b</b>&amp;"


def test_names_of_attributes():
    assert (
        element("i", class_="a", aria_label="b", id=None).text == '<i class="a" aria-label="b"></i>'
    )
    assert element("img", src="a", alt="").text == '<img src="a" alt="">'


def test_a_table_has_heads_of_columns_and_of_rows():
    page = Page(table(["agent", "return"], [("a", "1"), ("<b>", "2")], "numbers").text)
    assert page.tables == [[["agent", "return"], ["a", "1"], ["<b>", "2"]]]
    assert [head["scope"] for head in page.all("th")] == ["col", "col", "row", "row"]
    assert page.all("caption") == [{}]


def test_details_are_closed():
    assert Page(details("more", "text").text).elements == [("details", {}), ("summary", {})]
