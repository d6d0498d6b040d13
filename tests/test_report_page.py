"""The page: what it holds and in what order, that it asks for nothing, and that nothing in the data can act in it."""

from __future__ import annotations

import copy
import json
import re
import sys
import time
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from report_samples import HURT, sample_report

from trueprune._support.errors import AuditError
from trueprune.reports.audit import write_report
from trueprune.reports.gates.contract import Check, Gate, Outcome, Verdict
from trueprune.reports.html import render
from trueprune.reports.html.charts import block_map
from trueprune.reports.html.clean import clean, cleaned
from trueprune.reports.html.numbers import bound, interval, number, p_value, percent, seconds, signed
from trueprune.reports.html.svg import nice_ticks, tick_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

VOID = {"meta", "link", "br", "rect", "line", "circle", "polyline", "polygon"}
# What the page itself is made of; nothing else may come out of a document.
TAGS = """html head meta title link style body a header nav main section footer script button div span p h1 h2 h3 ul ol
    li dl dt dd table caption thead tbody tr th td figure figcaption details summary pre code bdi b em small br svg desc
    g line rect circle polyline polygon text"""
ATTRIBUTES = """charset content http-equiv name lang href rel class id tabindex role aria-label aria-labelledby open
    aria-hidden scope colspan rowspan hidden type viewbox width height x y x1 x2 y1 y2 cx cy r points text-anchor
    transform dir"""
HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(1)>\"'></style></title></textarea><!--"
    " javascript:alert(1) {{ 7*7 }} {% raw %} &lt;b&gt; \x00\x1b[31m\x85 \ud800 \u202eevil\u202c \u2066x\u2069 ]]>"
)


class Page(HTMLParser):
    """Elements in order, with their attributes and the text inside."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.comments: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        raise AssertionError(f"<{tag}/>")

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    def handle_comment(self, data):
        self.comments.append(data)

    @property
    def words(self) -> str:
        return "".join(text for tag, text in self.texts if tag not in ("style", "script"))

    def of(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def document():
    chosen = {name: HURT[name] for name in ("wanda", "third-attention")}
    return sample_report(chosen, items=24, resamples=20, small=True).to_json()


@pytest.fixture(scope="module")
def html(document):
    return render(document)


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


@pytest.fixture(scope="module")
def judged():
    report = sample_report({"wanda": 0.4, "tplo": 0.2}, items=24, resamples=20, small=True)
    bound = Check("perplexity", "perplexity", "change", at_most=20.0, reason="Text must stay fluent.")
    ratio = Check("calibration", "ece-15/*", "ratio", at_most=1.5)
    outcomes = [
        Outcome("wanda", "perplexity", bound, "inconclusive", False, 19.0, (17.0, 21.5), 24, 910),
        Outcome("wanda", "ece-15/sentiment", ratio, "fail", False, 1.9, (1.7, 2.1), 24, None, "It rests on few items."),
        Outcome("tplo", "perplexity", bound, "pass", True, 9.0, (8.0, 10.0), 24),
    ]
    return replace(report, verdict=Verdict(Gate("release", [bound, ratio]), outcomes)).to_json()


# What it holds


def test_sections_come_in_order(page, html):
    ids = [a["id"] for _, a in page.elements if "id" in a]
    wanted = ["verdict", "overview", "tradeoffs", "properties", "worst", "touched", "cost", "reproduce", "caveats"]
    assert [name for name in ids if name in wanted] == wanted
    assert len(ids) == len(set(ids))
    links = [a["href"] for a in page.of("a")]
    assert set(links) <= {f"#{name}" for name in ids}
    assert links[0] == "#main"


def test_every_number_of_the_document_is_on_the_page(document, page):
    words = page.words
    for row in document["measurements"]:
        assert row["metric"] in words
        assert number(row["value"], row["unit"]) in words
        if row["change"] is not None:
            assert signed(row["change"]["value"], row["unit"]) in words
    for one in document["worst_items"]:
        counts = f"{one['worse']} worse, {one['better']} better of {one['n']}"
        assert not one["items"] or counts in words
        for item in one["items"]:
            assert (item["text"] or item["item"]) in words
            for side in (item["before"], item["after"]):
                assert side["said"] is None or side["said"] in words
    for model in document["models"]:
        assert model["name"] in words
        for step in model.get("steps", []):
            assert step["command"] in words
            assert step["calibration"]["sha256"] in words
        for line in (*model.get("touched", {}).get("did", []), *model.get("touched", {}).get("left", [])):
            assert line in words
    assert document["summary"]["sentence"] in words


def test_each_picture_is_named_described_and_has_its_numbers_beside_it(page, html):
    pictures = [a for a in page.of("svg") if a.get("aria-hidden") != "true"]
    assert len(pictures) > 40
    assert all(a["role"] == "img" for a in pictures)
    for one in re.findall(r'<svg[^>]*role="img"[^>]*>.*?</svg>', html, re.S):
        assert re.match(r"<svg[^>]*><title>[^<]+</title><desc>[^<]+</desc>", one)
    assert html.count("<figure") == html.count("<figcaption>") == html.count("Numbers of this figure")
    # Rows of the separation curve: one a block.
    assert html.count("<title>Separation of true and false statements over the blocks</title>") == 1


def test_pictures_of_every_kind_are_drawn(html):
    for title in (
        "Separation of true and false statements over the blocks",
        "Confidence and how often it is right, sentiment: wanda",
        "Errors among the most confident answers, general",
        "Comprehensiveness, sentiment/lime",
        "Blocks of third-attention",
        "Confidence: calibration error (ECE): sentiment",
    ):
        assert f"<title>{title}</title>" in html, title
    assert html.count("<title>Change and its interval</title>") > 30


def test_tables_say_what_their_cells_belong_to(page, html):
    heads = page.of("th")
    assert heads
    assert all(a.get("scope") in ("col", "row", "rowgroup") for a in heads)
    regions = [a for a in page.of("div") if a.get("class") == "scroll"]
    assert len(regions) >= html.count("<table")
    assert all(a["tabindex"] == "0" and a["role"] == "region" and a["aria-label"] for a in regions)


def test_headings_do_not_skip_levels(page):
    levels = [int(name[1]) for name, _ in page.elements if re.fullmatch("h[1-6]", name)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_good_and_bad_are_said_in_words(page, document):
    readings = [row["change"]["reading"] for row in document["measurements"] if row["change"]]
    assert {"worse", "better", "no change found"} <= set(readings)
    assert page.words.count("▼ worse") >= readings.count("worse") // 2
    assert "stands after correction" in page.words


def test_a_verdict_comes_first(judged, harmless_page):
    words = harmless_page.words
    told = words.split("Verdict", 2)[2]
    assert "1 of 2 pruned models passes the gate release." in " ".join(told.split())
    for said in (
        judged["verdict"]["sentence"],
        "Text must stay fluent.",
        "inconclusive, counts as fail",
        "about 910",
        "change against the dense model at most +20.0",
        "ratio to the dense model at most 1.50",
        "It rests on few items.",
    ):
        assert said in words
    assert (
        told.index("passes the gate release")
        < told.index("Each cell: the value")
        < told.index("How well a simple probe")
    )
    assert "No gate was set" not in words


def test_without_a_gate_the_page_says_so(page):
    assert "No gate was set: this says what changed beyond chance, not whether that is acceptable." in page.words
    assert "is not shown to be unchanged" in page.words


def test_a_dense_model_alone_has_a_page():
    words = Page(render(sample_report({}, items=12, resamples=10).to_json())).words
    assert "there is no pruned model to compare it with" in words
    assert "There is no pruned model." in words


def test_what_was_not_measured_is_named(document):
    few = copy.deepcopy(document)
    few["measurements"] = [row for row in few["measurements"] if row["instrument"] == "perplexity"]
    few["instruments"] = [{**one, "measured": one["name"] == "perplexity"} for one in few["instruments"]]
    few["worst_items"] = []
    words = Page(render(few)).words
    missing = words.split("What was not measured")[1]
    assert "Lie detection lie-detection" in missing
    assert "Perplexity" not in missing
    assert "No item got worse" in words
    assert "--instruments" in words


# What it does not do


def test_the_page_asks_for_nothing(page, html):
    for tag, attributes in page.elements:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "srcset", "action", "data", "poster", "ping", "style"):
                raise AssertionError((tag, name, value))
            if name == "href":
                assert value == "data:," or str(value).startswith("#")
    assert "url(" not in html.lower()
    assert "@import" not in html
    assert not re.search(r"https?://", html)
    policy = next(a["content"] for a in page.of("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert page.of("html") == [{"lang": "en"}]


def planted(value, text, keep):
    """A document with a hostile string in the place of every string but those that are names of ours."""
    if isinstance(value, str):
        return value if value in keep else f"{text}{value}"
    if isinstance(value, dict):
        return {key: planted(one, text, keep) for key, one in value.items()}
    if isinstance(value, list):
        return [planted(one, text, keep) for one in value]
    return value


@pytest.fixture(scope="module")
def harmless_page(judged):
    return Page(render(judged))


@pytest.fixture(scope="module")
def hostile(judged):
    keep = {"share", "perplexity", "factor", "count", "bytes", "speed", "score", "value", "change", "ratio"}
    keep |= {
        "pass",
        "fail",
        "inconclusive",
        "worse",
        "better",
        "maybe worse",
        "maybe better",
        "no change found",
        "same",
    }
    document = planted(judged, HOSTILE, keep)
    # Names that are keys are hostile, too.
    for part in ("summary", "verdict"):
        document[part]["models"] = {f"{HOSTILE}{name}": one for name, one in document[part]["models"].items()}
    document["settings"]["versions"] = {HOSTILE: HOSTILE}
    document["settings"][HOSTILE] = [HOSTILE, {HOSTILE: None}]
    for row in document["measurements"]:
        row["details"]["reliability"] = {**row["details"].get("reliability", {}), HOSTILE: HOSTILE}
    return render(document)


def test_no_string_of_a_document_becomes_an_element_or_an_attribute(hostile, harmless_page):
    found, harmless = Page(hostile), harmless_page
    assert found.open == []
    assert found.comments == []
    assert {tag for tag, _ in found.elements} <= {*TAGS.split()}
    assert {name for _, attributes in found.elements for name in attributes} <= {*ATTRIBUTES.split()}
    for tag in ("script", "style", "img", "iframe", "title"):
        if tag != "title":
            assert len(found.of(tag)) == len(harmless.of(tag))
    for _, attributes in found.elements:
        assert not str(attributes.get("href", "#")).startswith("javascript")
        assert HOSTILE[:8] not in "".join(str(v) for k, v in attributes.items() if k != "aria-label")
    scripts = [text for tag, text in found.texts if tag == "script"]
    assert scripts == [text for tag, text in harmless.texts if tag == "script"]
    assert "<script>alert(1)</script>" in found.words
    assert "{{ 7*7 }}" in found.words


def test_nothing_that_cannot_be_seen_is_on_the_page(hostile):
    hostile.encode("utf-8")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]", hostile)
    assert "␀" in hostile
    assert "[U+202E]evil[U+202C]" in hostile


def test_strings_are_cleaned_and_others_left():
    assert clean("a\tb\nc é العربية 漢字") == "a\tb\nc é العربية 漢字"
    assert clean("\x00\x07\x7f\x80\ud83d\ufffe") == "␀␇␡\ufffd\ufffd\ufffd"
    assert clean("😀\u202e") == "😀[U+202E]"
    assert cleaned({"\x01": ["\x02", 1.5, None, True]}) == {"␁": ["␂", 1.5, None, True]}


def test_names_that_are_read_the_other_way_stand_apart(document):
    found = copy.deepcopy(document)
    found["worst_items"][0]["items"][0]["text"] = "هل الأرض مسطحة؟"
    found["worst_items"][0]["items"][0]["right"] = "لا"
    text = render(found)
    assert '<p dir="auto">هل الأرض مسطحة؟</p>' in text
    assert "<bdi>لا</bdi>" in text


def test_documents_that_are_none_are_refused(document):
    with pytest.raises(AuditError, match="schema 1, and reports are made of 2"):
        render({**document, "schema": 1})
    with pytest.raises(AuditError, match="cannot be read"):
        render({"schema": 2})
    with pytest.raises(AuditError, match="cannot be read"):
        render({**document, "measurements": [{"model": "x"}]})
    with pytest.raises(AuditError, match="cannot be read"):
        render({**document, "models": 7})


def test_numbers_that_are_none_leave_gaps(document):
    found = json.loads(json.dumps(document))
    for row in found["measurements"]:
        row["value"], row["interval"] = None, [None, None]
        if row["change"]:
            row["change"] |= {"value": None, "interval": [None, None], "test": None}
        for curve in row["details"].get("risk_coverage", {}).values():
            curve[0] = None
    for model in found["models"]:
        model["curves"]["separation"][3] = None
    assert "What pruning changed" in Page(render(found)).words


def test_changes_that_are_rounding_or_out_of_bounds_are_drawn_or_left(document):
    found = json.loads(json.dumps(document))
    for size, row in zip([1e-16, 1e-300, 1e30, 1e-8] * 400, found["measurements"], strict=False):
        if row["change"]:
            row["change"] |= {"value": size, "interval": [-size, 2 * size]}
            row["value"], row["interval"] = size, [-size, 2 * size]
    text = render(found)
    assert "nan" not in "".join(re.findall(r"<svg.*?</svg>", text, re.S))
    assert "What pruning changed" in text


def test_a_page_that_cannot_be_made_does_not_cost_the_measurements(tmp_path, monkeypatch):
    report = sample_report({"wanda": 0.4}, items=12, resamples=10, small=True)

    def broken(document):
        raise AuditError("the audit cannot be read (x)", "y")

    monkeypatch.setattr("trueprune.reports.audit.render", broken)
    with pytest.warns(UserWarning, match=r"report.html is not written: the audit cannot be read \(x\)"):
        write_report(report, tmp_path)
    assert {file.name for file in tmp_path.iterdir()} >= {"audit.json", "items.jsonl"}


# Size and time


def test_a_report_of_five_models_and_ten_instruments_is_small_and_quick():
    report = sample_report({**HURT}, items=24, resamples=10)
    assert len(report.models) == 5
    document = report.to_json()
    assert sum(one["measured"] for one in document["instruments"]) == 10
    started = time.perf_counter()
    text = render(document)
    took = time.perf_counter() - started
    assert len(text.encode()) < 3_000_000
    assert took < 10


# Numbers


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (0.12345, "share", "0.123"),
        (-0.0001, "share", "0.000"),
        (-0.5, "share", "−0.500"),
        (42.44, "perplexity", "42.4"),
        (12345.6, "perplexity", "12,345.6"),
        (1e9, "perplexity", "1e+09"),
        (134.5e6, "count", "134.5\u202fM"),
        (999.96, "count", "1.0\u202fk"),
        (0, "bytes", "0\u202fB"),
        (23040, "bytes", "23.0\u202fkB"),
        (1.163, "factor", "1.16\u202f×"),
        (None, "share", "–"),
        (float("nan"), "share", "–"),
        ("0.5", "share", "–"),
    ],
)
def test_numbers_are_written_in_their_unit(value, unit, expected):
    assert number(value, unit) == expected


def test_changes_have_signs():
    assert signed(0.5) == "+0.500"
    assert signed(-0.5) == "−0.500"
    assert signed(0.0) == "0.000"
    assert signed(0.01, "factor") == "+0.010"
    assert interval((-0.1, 0.2), change=True) == "−0.100 to +0.200"
    assert interval((0.1, None)) == interval(None) == ""
    assert (p_value(0.0001), p_value(0.0344), p_value(None)) == ("< 0.001", "0.034", "–")
    assert (percent(0.634), percent(None)) == ("63\u202f%", "–")
    assert [seconds(s) for s in (41.75, 738, 11160, None)] == ["41.8\u202fs", "12.3\u202fmin", "3.1\u202fh", "–"]


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (-0.247, 0.03), (36.1, 180.0), (0, 1e-7), (0, 3e-15), (1e9, 3e9), (5, 5)]
)
def test_ticks_are_round_and_inside(low, high):
    ticks = nice_ticks(low, high)
    assert 1 <= len(ticks) <= 8
    assert all(low - 1e-9 * abs(low) <= tick <= high * (1 + 1e-9) for tick in ticks)
    words = [tick_text(tick, ticks) for tick in ticks]
    assert len(set(words)) == len(words)


def test_what_the_page_is_made_of_is_in_the_package():
    root = Path(__file__).parent.parent
    tool = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    globs = tool["setuptools"]["package-data"]["trueprune"]
    reports = root / "src" / "trueprune" / "reports"
    found = [*reports.glob("html/**/*.*"), *reports.glob("schema/*")]
    beside = [file.relative_to(root / "src" / "trueprune") for file in found if file.suffix not in (".py", ".pyc")]
    assert len(beside) > 12
    assert [str(file) for file in beside if not any(file.match(glob) for glob in globs)] == []


@pytest.mark.parametrize(
    ("value", "unit", "change", "expected"),
    [
        (1.005, "factor", False, "1.005\u202f×"),
        (1.5, "factor", False, "1.50\u202f×"),
        (0.0005, "share", True, "+0.0005"),
        (-0.0125, "share", True, "\u22120.0125"),
        (20.0, "perplexity", True, "+20.0"),
        (10.25, "perplexity", False, "10.25"),
        (1e9, "bytes", False, "1.0\u202fGB"),
        (None, "share", False, "\u2013"),
    ],
)
def test_bounds_are_written_as_they_were_set(value, unit, change, expected):
    assert bound(value, unit, change=change) == expected


def test_without_the_size_trade_offs_claim_no_lost_weights():
    document = sample_report({"wanda": 0.4, "tplo": 0.2}, items=24, resamples=20, small=True).to_json()
    document["measurements"] = [row for row in document["measurements"] if row["instrument"] != "efficiency"]
    html = render(document)
    assert "Against weights lost" not in html
    assert "layers that are gone do not count" in html


@pytest.mark.parametrize(
    ("touched", "states"),
    [
        ({"sparsity": [0.5, 0.0], "did": ["x"]}, ["50.0\u202f% zeros", "as in the dense model"]),
        ({"sparsity": [0.5, 0.0]}, ["50.0\u202f% zeros", "no zeros"]),
        (
            {"sparsity": [0.5, 0.0], "did": ["x"], "healed": {"blocks": [], "count": 1}},
            ["50.0\u202f% zeros", "no zeros"],
        ),
        (
            {"sparsity": [], "did": ["x"], "dropped": {"blocks": [0]}, "pruned": {"score": "wanda"}},
            ["gone", "zeros not known"],
        ),
        ({"sparsity": [], "did": ["x"], "dropped": {"attention": [0]}}, ["attention gone", "as in the dense model"]),
    ],
)
def test_a_block_is_called_untouched_only_where_the_record_says_so(touched, states):
    figure = block_map("p", {"blocks": 2, **touched})
    assert figure is not None
    assert [row[2] for row in figure.rows] == states
