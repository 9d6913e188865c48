"""Holds `clean` to what each option takes out of a text, and to what it tells of it."""

from __future__ import annotations

import html
import unicodedata
from html.parser import HTMLParser

import pytest
from datasets import Dataset

from ftk.errors import RecipeError, UserError
from tests.plugins.transforms.applying import apply, texts, told

KEEP = {"unicode": "keep", "control": False, "whitespace": "keep", "html": "keep", "drop_empty": False}


def alone(text: str, **options: object) -> str:
    """A text after one step alone."""
    (after,) = texts("clean", [text], **{**KEEP, **options})
    return after


@pytest.mark.parametrize("form", ["NFC", "NFKC"])
@pytest.mark.parametrize("text", ["e\u0301t\u00e9", "\ufb01n \uff21\uff11", "\u1100\u1161\u11a8", "① ½"])
def test_texts_get_the_unicode_form_that_is_asked_for(form: str, text: str) -> None:
    assert alone(text, unicode=form) == unicodedata.normalize(form, text)
    assert alone(text, drop_empty=True) == text


def test_control_characters_go_and_line_ends_become_one() -> None:
    text = "a\x00b\u200bc\ufeffd\u00ade\u202ef\r\ng\rh\u2028i\tj"
    assert alone(text, control=True) == "abcdef\ng\nh\ni\tj"
    persian, family = "می\u200cخواهم", "👨\u200d👩\u200d👧"
    assert alone(persian + family, control=True) == persian + family, "joiners are part of the spelling"
    every = "".join(chr(code) for code in range(0x10000) if not 0xD800 <= code < 0xE000)
    assert not [c for c in alone(every, control=True) if unicodedata.category(c) == "Cc" and c not in "\t\n"]


def test_white_space() -> None:
    text = "  def f():  \n    return 1\t\n\n\n\nend \n"
    assert alone(text, whitespace="trim") == "def f():\n    return 1\n\n\n\nend"
    assert alone(text, whitespace="collapse") == "def f():\n return 1\n\nend"
    assert alone("a\u00a0 \u3000b", whitespace="collapse") == "a b"


PAGE = """<!DOCTYPE html><html><head><style>p { color: red }</style></head><body>
<!-- a <b>note</b> --><h1>Caf&eacute;</h1><p class="x">Fish &amp; <b>chips</b>: 5&#8364;<br/>Now</p>
<script type="text/javascript">if (a < b) { alert("<p>"); }</script></body></html>"""


class Reference(HTMLParser):
    """The standard library's parser: the words outside of scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self.hidden = 0

    def handle_starttag(self, tag, attrs):
        self.hidden += tag in ("script", "style")
        self.words.append(" ") if tag in ("p", "br", "h1") else None

    def handle_endtag(self, tag):
        self.hidden -= tag in ("script", "style")
        self.words.append(" ") if tag in ("p", "h1") else None

    def handle_data(self, data):
        self.words += [] if self.hidden else [data]


def test_html_is_taken_out_as_the_standard_librarys_parser_reads_it() -> None:
    reader = Reference()
    reader.feed(PAGE)
    assert alone(PAGE, html="strip").split() == "".join(reader.words).split()
    assert alone(PAGE, html="entities") == html.unescape(PAGE)


def test_what_is_no_html_stays() -> None:
    text = "List<int> x; if a <c and d> e, <person@example.org> &c"
    assert alone(text, html="strip") == text


def test_blocks_part_lines_and_inline_elements_do_not_part_words() -> None:
    assert alone("<p>one</p><p>t<i>w</i>o</p>", html="strip") == "\none\n\ntwo\n"


def test_rows_of_which_nothing_is_left_are_dropped() -> None:
    rows = [{"text": " \u200b "}, {"text": "<br>"}, {"text": "kept"}, {"text": None}]
    after, effects = apply("clean", rows, html="strip")
    assert after == [{"text": "kept"}]
    assert told(effects) == {
        "changed with HTML": 1,
        "changed with control characters": 1,
        "changed with stray white space": 2,
        "dropped without any text": 3,
    }
    assert effects[0].examples == ("<br>",)
    assert len(apply("clean", rows, html="strip", drop_empty=False)[0]) == 4


def test_texts_in_lists_and_messages_are_cleaned_and_the_rest_is_left() -> None:
    messages = [{"role": " user ", "content": " hi "}, {"role": "assistant", "content": "yo\x00"}]
    row = {"messages": messages, "keywords": ["a ", None], "number": 3, "note": " n "}
    (after,), _ = apply("clean", [row])
    assert after["messages"] == [{"role": " user ", "content": "hi"}, {"role": "assistant", "content": "yo"}]
    assert (after["keywords"], after["number"], after["note"]) == (["a", None], 3, "n")
    (only,), _ = apply("clean", [row], columns=["note"])
    assert (only["keywords"], only["note"]) == (["a ", None], "n")


def test_batches_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    given = [f" {n} <b>x</b> " if n % 3 else " " for n in range(50)]
    whole = texts("clean", given, html="strip")
    monkeypatch.setattr("ftk_plugins.transforms.rows.BATCH_ROWS", 7)
    assert texts("clean", given, html="strip") == whole == [f"{n} x" for n in range(50) if n % 3]


def test_types_of_columns_stay() -> None:
    from ftk.testing import Subject

    rows = Dataset.from_dict({"text": [" a "], "n": [1], "tags": [["x "]]})
    assert Subject("transform", "clean").build().apply(rows).features == rows.features


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([{"text": "a"}], {"columns": ["txt"]}, "`clean` finds no column `txt`\n  did you mean `text`"),
        ([{"n": 1}], {"columns": ["n"]}, "column `n` holds int64"),
        ([{"n": 1}], {}, "finds no column with text\n  the columns are `n`"),
    ],
)
def test_columns_it_cannot_work_on_are_named(rows, options, message) -> None:
    with pytest.raises(UserError) as caught:
        apply("clean", rows, **options)
    assert message in str(caught.value)


def test_doing_nothing_is_refused() -> None:
    with pytest.raises(RecipeError, match="everything is switched off"):
        apply("clean", [{"text": "a"}], **KEEP)
    with pytest.raises(RecipeError, match="names a column twice"):
        apply("clean", [{"text": "a"}], columns=["text", "text"])
