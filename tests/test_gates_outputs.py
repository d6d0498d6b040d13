"""A verdict in words, in a terminal, as JUnit XML and as Markdown; names that would break each of these."""

from __future__ import annotations

import html
import io
import json
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from trueprune._support.lines import one_line
from trueprune.audits.measurement import Measurement
from trueprune.cli.show import show
from trueprune.reports import AuditedModel, compare
from trueprune.reports.gates import Check, Gate, Outcome, Verdict, judge, junit, markdown, sentence, verdict_table
from trueprune.reports.gates.words import explained, figure, spoken

HOSTILE = [
    "<script>alert(1)</script>",
    "a|b | c",
    "`code` *bold* _it_ ~~no~~ [link](javascript:alert)",
    "two\nlines\r\n\n# heading",
    "../../etc/passwd",
    "\x1b[31mred\x00\x07\ufffe",
    "]]>&amp;&#60;",
    "\"quoted\" 'twice'",
    "[red]markup[/red]",
    "@everyone www.example.com https://example.com #1 GH-1 $x$ :tada:",
    "\u202eturned",
    "half \ud800 of one",
    "-->",
    "\\|",
    "ω模型 💡",
    "| --- |",
    "1. one",
    "- list",
    "c1 \x9b31m \x7f",
]
NAN = float("nan")


def outcome(status="pass", value=-0.01, passed=None, model="tplo", metric="accuracy/facts", **options):
    options = {"interval": (value - 0.03, value + 0.02), "n": 200, **options}
    check = options.pop("check", None) or Check("accuracy", metric, "change", -0.02, None, "Because.")
    return Outcome(model, metric, check, status, status == "pass" if passed is None else passed, value, **options)


def verdict(*outcomes, name="release"):
    return Verdict(Gate(name, [o.check for o in outcomes]), outcomes)


BROKEN = outcome("fail", -0.07)
PERPLEXITY = Check("perplexity", "perplexity", "ratio", None, 1.15)
UNDECIDED = outcome("inconclusive", 1.12, metric="perplexity", check=PERPLEXITY, needed=1300)


# Words


@pytest.mark.parametrize(
    ("outcomes", "said"),
    [
        ([outcome()], "tplo passes the gate release: keeps its one bound."),
        ([outcome()] * 3, "tplo passes the gate release: keeps all 3 bounds."),
        (
            [outcome(), BROKEN],
            "tplo fails the gate release: breaks 1 of 2 bounds (accuracy (facts) fell by 0.07, allowed is 0.02).",
        ),
        (
            [outcome(), UNDECIDED],
            "tplo fails the gate release: breaks none of 2 bounds, 1 is undecided (perplexity) and counts as failed.",
        ),
        (
            [outcome("inconclusive", passed=True)],
            "tplo passes the gate release: does not break its one bound, 1 is undecided (accuracy (facts)) and counts "
            "as passed.",
        ),
        (
            [BROKEN, UNDECIDED, UNDECIDED, outcome("inconclusive", passed=True)],
            "tplo fails the gate release: breaks 1 of 4 bounds (accuracy (facts) fell by 0.07, allowed is 0.02), 2 are "
            "undecided and count as failed, 1 is undecided and counts as passed.",
        ),
        (
            [outcome("fail", -0.5, metric=f"mc1/s{n}") for n in range(5)],
            "tplo fails the gate release: breaks 5 of 5 bounds (MC1 (s0) fell by 0.5, allowed is 0.02; MC1 (s1) fell "
            "by 0.5, allowed is 0.02; MC1 (s2) fell by 0.5, allowed is 0.02; and 2 more).",
        ),
        ([outcome(), outcome(model="owl")], "All 2 models pass the gate release."),
        (
            [outcome(), outcome("fail", -0.07, model="owl")],
            "1 of 2 models passes the gate release (tplo); owl breaks its one bound (accuracy (facts) fell by 0.07, "
            "allowed is 0.02).",
        ),
        (
            [outcome("fail", -0.07), outcome("fail", NAN, model="owl")],
            "0 of 2 models pass the gate release; tplo breaks its one bound (accuracy (facts) fell by 0.07, allowed is "
            "0.02); owl breaks its one bound (accuracy (facts) is undefined).",
        ),
        ([], "The gate release held no model against its bounds."),
    ],
)
def test_the_verdict_in_a_sentence(outcomes, said):
    assert sentence(verdict(*outcomes)) == said


@pytest.mark.parametrize(
    ("check", "value", "said"),
    [
        (("open-qa", "hallucination/general", "change", None, 0.02), 0.06, "rose by 0.06, allowed is 0.02"),
        (("open-qa", "hallucination/general", "change", None, -0.02), 0.06, "rose by 0.06, at most -0.02 is asked"),
        (("open-qa", "hallucination/general", "change", None, -0.02), -0.01, "fell by 0.01, at most -0.02 is asked"),
        (("accuracy", "accuracy/facts", "change", 0.01, None), -0.01, "fell by 0.01, at least 0.01 is asked"),
        (("accuracy", "accuracy/facts", "value", 0.7, None), 0.6, "is 0.6, at least 0.7 is asked"),
        (("accuracy", "accuracy/facts", "value", 0.7, 0.8), 0.6, "is 0.6, between 0.7 and 0.8 is asked"),
        (("perplexity", "perplexity", "ratio", None, 1.1), 1.31234, "is 1.312 times the dense model's, at most 1.1"),
    ],
)
def test_what_broke_as_somebody_would_say_it(check, value, said):
    found = outcome("fail", value, metric=check[1], check=Check(*check))
    assert f" {said}" in spoken(found)


def test_lie_detection_is_named_as_in_tables_where_that_is_clear():
    for metric, name in (
        ("grouped/logistic/frozen", "lie detection (dense probe)"),
        ("grouped/logistic/frozen/negated", "grouped/logistic/frozen/negated"),
    ):
        found = outcome("fail", -0.1, metric=metric, check=Check("lie-detection", metric, "change", -0.05))
        assert spoken(found).startswith(f"{name} fell")
    # A metric of three parts that no table has a heading for.
    soft = Check("faithfulness", "soft-sufficiency/facts/lime", "change", -0.05)
    assert spoken(outcome("fail", -0.1, metric=soft.metric, check=soft)).startswith("soft-sufficiency/facts/lime fell")


def test_what_would_decide_is_said():
    said = explained(UNDECIDED)
    assert said == (
        "perplexity ratio is 1.12 [1.09, 1.14], which does not decide the bound (at most 1.15). It counts as failed. "
        "About 1,300 windows of text (--max-tokens, --text) instead of 200 would decide it; if the value stays, it "
        "would then pass."
    )
    worse = outcome("inconclusive", 1.2, metric="perplexity", check=PERPLEXITY, needed=900, passed=True)
    assert "It counts as passed" in explained(worse)
    assert explained(worse).endswith("it would then fail.")
    on_it = outcome("inconclusive", 1.15, metric="perplexity", check=PERPLEXITY)
    assert "lies on the bound: no number of items would decide it" in explained(on_it)
    assert explained(outcome("fail", NAN, interval=(NAN, NAN), n=0, note="No answer")) == (
        "accuracy/facts change is undefined, the bound is at least -0.02. Note: No answer."
    )


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (0.02, "0.02"),
        (-0.07000000000000006, "-0.07"),
        (1.31234, "1.312"),
        (0.00012, "0.0001"),
        (0.00001234, "1.23e-05"),
        (150e6, "150,000,000"),
        (12345.6, "12,346"),
        (1e16, "1e+16"),
        (NAN, "undefined"),
    ],
)
def test_figures(value, shown):
    assert figure(value) == shown


# Hostile names


def hostile_report(name):
    items = [f"i{n}" for n in range(200)]

    def of(right, metric):
        return Measurement("accuracy", metric, items, (np.arange(200) < right).astype(float), headline=True)

    metrics = ("accuracy/facts", f"accuracy/{name.replace('/', '')}")
    models = [AuditedModel(name, [of(right, m) for m in metrics]) for right, name in ((150, "dense"), (140, name))]
    models.append(AuditedModel("fine", models[0].measurements))
    report = compare(models, {"resamples": 50, "seed": 0}, resamples=50, seed=0)
    gate = Gate(
        name,
        [
            Check("accuracy", "accuracy/*", "change", -0.04, None, name),
            Check("accuracy", "accuracy/*", "change", -0.06, None, name, "pass"),
        ],
    )
    return judge(gate, report), report


@pytest.mark.parametrize("name", HOSTILE)
def test_junit_xml_holds_any_name(name):
    found, _ = hostile_report(name)
    text = junit(found)
    root = ElementTree.fromstring(text.encode("utf-8"))
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]", text)
    suites = root.findall("testsuite")
    assert [suite.get("name") for suite in suites] == [one_line(name), "fine"]
    for suite, model in zip(suites, found.models, strict=True):
        cases, outcomes = suite.findall("testcase"), found.of(model)
        assert [case.get("classname") for case in cases] == ["accuracy"] * 4
        assert len({case.get("name") for case in cases}) == 4
        failed = [case for case in cases if case.find("failure") is not None]
        skipped = [case for case in cases if case.find("skipped") is not None]
        assert int(suite.get("tests")) == len(cases) == len(outcomes)
        assert int(suite.get("failures")) == len(failed) == sum(not o.passed for o in outcomes)
        assert int(suite.get("skipped")) == len(skipped) == sum(o.passed and o.status != "pass" for o in outcomes)
        for case in failed:
            assert explained_in(case) == case.find("failure").get("message")
    assert int(root.get("failures")) == 2
    assert int(root.get("tests")) == 8


def explained_in(case):
    return case.find("failure").text.split("\n")[0]


def test_junit_by_hand():
    root = ElementTree.fromstring(junit(verdict(outcome(), BROKEN, UNDECIDED, outcome("inconclusive", passed=True))))
    suite = root.find("testsuite")
    assert root.attrib == {"name": "trueprune gate release", "tests": "4", "failures": "2", "errors": "0", "time": "0"}
    assert suite.attrib == {
        "name": "tplo", "tests": "4", "failures": "2", "errors": "0", "skipped": "1", "time": "0",
    }  # fmt: skip
    kept, broken, undecided, let_pass = suite
    assert kept.get("name") == "accuracy/facts change: at least -0.02"
    assert "keeps the bound" in kept.find("system-out").text
    assert broken.find("failure").get("type") == "fail"
    assert broken.find("failure").text.endswith("\nBecause.")
    assert undecided.find("failure").get("type") == "inconclusive"
    assert "About 1,300 windows" in undecided.find("failure").get("message")
    assert "counts as passed" in let_pass.find("skipped").get("message")
    assert let_pass.find("failure") is None


def in_markdown(text):
    """The HTML that GitHub's flavour makes of it, near enough."""
    return MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(text)


def words_of(rendered):
    plain = re.sub(r"<!--.*?-->|</?(h\d|p|table|thead|tbody|tr|t[hd]|strong|sub|ul|li)\b[^>]*>", "", rendered)
    return plain.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", '"').replace("&amp;", "&")


@pytest.mark.parametrize("name", HOSTILE)
def test_markdown_shows_any_name_as_it_is(name):
    found, report = hostile_report(name)
    text = markdown(found, report)
    rendered = in_markdown(text)
    shown = one_line(name)
    # Not a tag came of a name but our own.
    tags = set(re.findall(r"<(/?[a-z0-9]+)", rendered)) - {f"{end}{tag}" for end in ("", "/") for tag in OURS}
    assert tags == set()
    assert words_of(rendered).count(shown) >= 4
    assert f"Gate {shown}: ❌ failed" in words_of(rendered)
    # Every row of the two tables has its six cells.
    rows = re.findall(r"<tr>(.*?)</tr>", rendered, re.DOTALL)
    cells = [[words_of(cell) for cell in re.findall("<t[hd].*?>(.*?)</t[hd]>", row, re.DOTALL)] for row in rows]
    assert len(cells) == 10
    assert rendered.count("<li>") == text.count("\n- accuracy/")
    titles = {f"{one_line(one.metric)} change" for one in found.outcomes}
    assert {row[0] for row in cells} == {"bound on", *titles}
    assert {len(row) for row in cells} == {6}
    assert all(re.search("verdict|pass|undecided", row[-1]) for row in cells)


OURS = ("h2", "h3", "p", "table", "thead", "tbody", "tr", "th", "td", "strong", "sub", "ul", "li")


@pytest.mark.parametrize("name", ["- list", "1. one", "+ plus", "# head", "---", "> quote", "    code", "```"])
def test_a_name_that_begins_a_line_begins_nothing_else(name):
    found, report = hostile_report(name)
    alone = Verdict(found.gate, found.of(found.models[0]))
    rendered = in_markdown(markdown(alone, report))
    assert f"<p><strong>Verdict:</strong> {html.escape(one_line(name))} fails the gate" in rendered
    assert not re.search("<(ol|hr|h1|blockquote|pre|code)", rendered)


def test_no_link_or_mention_comes_of_a_name():
    found, report = hostile_report("@everyone www.example.com https://example.com #1 GH-1")
    text = markdown(found, report)
    assert not re.search(r"@\w|www\.|https?:|(?<!\\)#1|GH-1", text)


def test_markdown_by_hand():
    found, report = hostile_report("tplo")
    text = markdown(found, report)
    assert "## Gate tplo: ❌ failed" in text
    assert "### tplo: failed" in text
    assert "### fine: passed" in text
    row = next(line for line in text.splitlines() if line.startswith("| accuracy/facts change"))
    assert row.startswith("| accuracy/facts change | 0.75 | 0.7 | -0.05 \\[")
    assert "at least -0.04 |" in row
    assert "undecided, counts as **failed** |" in row
    assert "- accuracy/facts change: About " in text
    assert "50 resamples of whole clusters, paired by item with dense." in text
    alone = compare(report.models[:1], {"resamples": 50, "seed": 0}, resamples=50, seed=0)
    own = judge(Gate("g", [Check("accuracy", "accuracy/facts", "value", 0.9, None, "Enough to use.")]), alone)
    text = markdown(own, alone)
    assert "| bound on | dense | bounded | must be | verdict |" in text
    assert "- accuracy/facts: Enough to use." in text
    assert "paired" not in text


@pytest.mark.parametrize("name", HOSTILE)
def test_a_terminal_prints_any_name_and_obeys_none(name, capsys):
    found, _ = hostile_report(name)
    show(verdict_table(found))
    out = capsys.readouterr().out
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", out)
    assert re.sub(r"\s+", "", one_line(name)) in re.sub(r"[\s│]+", "", out)
    assert "inconclusive, counts as failed" in out
    assert "inconclusive, counts as passed" in out
    assert re.search(r"accuracy/facts change\s+│\s+at least -0.06\s+│\s+-0.05 \[", out)


def test_a_console_with_markup_and_emoji_prints_names_as_they_are():
    found, _ = hostile_report("[red]x[/red] :tada:")
    console = Console(width=200, record=True, file=io.StringIO(), markup=True, emoji=True)
    console.print(verdict_table(found))
    text = console.export_text()
    assert text.count("accuracy/[red]x[red] :tada: change") == 4
    assert text.count("[red]x[/red] :tada: against the gate [red]x[/red] :tada:") == 1


def test_a_verdict_is_plain_data():
    found, _ = hostile_report("tplo")
    data = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert (data["gate"], data["passed"], list(data["models"])) == ("tplo", False, ["tplo", "fine"])
    assert data["sentence"] == sentence(found)
    assert (data["models"]["tplo"]["passed"], data["models"]["fine"]["passed"]) == (False, True)
    first = data["models"]["tplo"]["outcomes"][0]
    assert first["check"]["metric"] == "accuracy/*"
    assert first["metric"] == "accuracy/facts"
    assert (first["status"], first["passed"], first["n"]) == ("inconclusive", False, 200)
    assert first["interval"] == list(found.outcomes[0].interval)
    assert first["needed"] == found.outcomes[0].needed > 40
