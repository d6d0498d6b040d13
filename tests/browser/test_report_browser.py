"""The report in a real browser: nothing loaded, nothing wrong, with and without JavaScript, wide, narrow and printed.

`make test-browser` installs what these need. Chromium is found by TRUEPRUNE_CHROMIUM (by default Debian's), axe-core,
which judges accessibility, by TRUEPRUNE_AXE.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from trueprune.reports.gates.contract import Check, Gate, Outcome, Verdict
from trueprune.reports.html import render

playwright = pytest.importorskip("playwright.sync_api")
from report_samples import sample_report  # noqa: E402

pytestmark = pytest.mark.browser
CHROMIUM = os.environ.get("TRUEPRUNE_CHROMIUM", "/usr/bin/chromium")
AXE = os.environ.get("TRUEPRUNE_AXE", "")
QUIET = "no-sandbox disable-gpu disable-background-networking disable-component-update disable-sync no-first-run"
SERIOUS = ("serious", "critical")
LONG = "a" * 300 + '"><img src=x onerror=alert(1)>'
# Sizes of a desktop and of a phone.
WIDE, NARROW = {"width": 1360, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="session")
def files(tmp_path_factory) -> dict[str, Path]:
    """A plain report, one with a verdict, and one whose names and texts are hostile and long."""
    folder = tmp_path_factory.mktemp("reports")
    plain = sample_report(items=24, resamples=20, small=True)
    bound = Check("perplexity", "perplexity", "change", at_most=20.0, reason=f"Text must stay fluent. {LONG}")
    outcome = Outcome("wanda", "perplexity", bound, "inconclusive", False, 19.0, (17.0, 21.5), 60, 910)
    judged = replace(plain, verdict=Verdict(Gate("release", [bound]), [outcome, replace(outcome, status="pass")]))
    hostile = sample_report({LONG: 0.4, "other": 0.2}, items=24, resamples=20, small=True).to_json()
    for one in hostile["worst_items"]:
        for item in one["items"]:
            item["text"] = item["right"] = item["after"]["said"] = LONG
    hostile["settings"]["text"] = hostile["settings"]["command"] = LONG
    found = {}
    for name, document in (("plain", plain.to_json()), ("judged", judged.to_json()), ("hostile", hostile)):
        found[name] = folder / f"{name}.html"
        found[name].write_text(render(document), encoding="utf-8")
    return found


@pytest.fixture(scope="session")
def browser():
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=CHROMIUM, args=[f"--{flag}" for flag in QUIET.split()])
        yield opened
        opened.close()


@pytest.fixture
def visit(browser, files) -> Iterator:
    """Open a report; whatever the browser complains about or asks for is kept in the page's `noted`."""
    contexts = []

    def open_it(name="plain", **options):
        # Nothing moves by itself, so that nothing has to be waited for.
        context = browser.new_context(**{"viewport": WIDE, "reduced_motion": "reduce", **options})
        contexts.append(context)
        page = context.new_page()
        page.noted = []
        page.on("console", lambda message: page.noted.append(message.text))
        page.on("pageerror", lambda error: page.noted.append(str(error)))
        address = files[name].as_uri()
        page.on(
            "request", lambda request: request.url.startswith((address, "data:,")) or page.noted.append(request.url)
        )
        page.on("dialog", lambda dialog: page.noted.append(dialog.message) or dialog.dismiss())
        page.goto(address)
        page.wait_for_load_state("networkidle")
        return page

    yield open_it
    for context in contexts:
        context.close()


@pytest.mark.parametrize("name", ["plain", "judged", "hostile"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wrong_and_nothing_is_loaded(visit, name, scheme):
    page = visit(name, color_scheme=scheme)
    assert page.noted == []
    assert page.locator("h1").is_visible()
    assert page.evaluate("performance.getEntriesByType('resource').length") == 0


def test_it_reads_the_same_without_javascript(visit):
    said = [visit("judged", java_script_enabled=on).locator("main").text_content() for on in (True, False)]
    assert said[0] == said[1]
    assert len(said[0]) > 10_000
    page = visit("judged", java_script_enabled=False)
    assert page.get_by_text("1 of 1 pruned models").count() == 0
    assert page.locator("#verdict .verdict").is_visible()
    assert page.locator("#theme").is_hidden()
    page.locator("details.worst").nth(1).locator("summary").click()
    assert page.locator("details.worst").nth(1).locator("table").is_visible()


@pytest.mark.parametrize("name", ["plain", "judged", "hostile"])
@pytest.mark.parametrize("size", [NARROW, WIDE], ids=["narrow", "wide"])
def test_the_page_does_not_scroll_sideways(visit, name, size):
    page = visit(name, viewport=size)
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= size["width"]
    outside = page.evaluate(
        """width => [...document.querySelectorAll('main *')].filter(one => {
            if (one.closest('.scroll') || one.closest('.sr') || one.closest('svg')) return false
            const box = one.getBoundingClientRect()
            return box.width > 0 && (box.right > width + 1 || box.left < -1)
        }).map(one => one.outerHTML.slice(0, 120))""",
        size["width"],
    )
    assert outside == []


@pytest.mark.parametrize(
    ("name", "scheme", "size"),
    [("judged", "light", WIDE), ("judged", "dark", NARROW), ("plain", "dark", WIDE), ("hostile", "light", NARROW)],
    ids=["light", "dark", "no gate", "hostile"],
)
def test_axe_finds_no_serious_fault(visit, name, scheme, size):
    assert AXE, "TRUEPRUNE_AXE names no axe.min.js"
    page = visit(name, color_scheme=scheme, viewport=size, bypass_csp=True)
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
    page.add_script_tag(path=AXE)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']}).then(result => result.violations)")
    faults = [(one["id"], one["help"], one["nodes"][0]["html"][:200]) for one in found if one["impact"] in SERIOUS]
    assert faults == []


def test_the_keyboard_reaches_navigation_and_tables(visit):
    page = visit(viewport=NARROW)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.locator(".skip").bounding_box()["y"] >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page = visit(viewport=NARROW)
    reached = []
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                "[document.activeElement.tagName, document.activeElement.className, "
                "getComputedStyle(document.activeElement).outlineStyle]"
            )
        )
    assert any(tag == "A" for tag, _, _ in reached)
    assert ["DIV", "scroll"] in [one[:2] for one in reached]
    assert any(tag == "SUMMARY" for tag, _, _ in reached)
    assert [one for one in reached if one[2] == "none" and one[0] != "BODY"] == []
    region = page.locator("#overview .scroll")
    region.focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    assert region.evaluate("one => one.scrollLeft") > 0


def test_links_lead_to_headings_that_the_navigation_does_not_cover(visit):
    page = visit(viewport=NARROW)
    page.locator("nav a", has_text="What was touched").click()
    assert page.url.endswith("#touched")
    nav, title = page.locator("nav").bounding_box(), page.locator("#touched-title").bounding_box()
    assert nav["y"] == 0
    assert nav["height"] - 1 <= title["y"] < 300


def test_the_theme_can_be_turned(visit):
    page = visit(color_scheme="light")
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.locator("#theme").click()
    dark = page.evaluate(background)
    assert dark != light
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(background) == dark
    page.locator("#theme").click()
    assert page.evaluate(background) == light
    assert visit(color_scheme="dark").evaluate(background) == dark


def test_it_prints_whole(visit, tmp_path):
    page = visit(color_scheme="dark")
    page.emulate_media(media="print")
    assert page.locator("nav").is_hidden()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    overflow = page.evaluate("[...document.querySelectorAll('.scroll')].map(one => getComputedStyle(one).overflowX)")
    assert set(overflow) == {"visible"}
    # Lists of items that were folded can be read on paper.
    folded = page.locator("details.worst:not([open]) table").first
    assert folded.bounding_box()["height"] > 10
    file = tmp_path / "report.pdf"
    page.pdf(path=file, prefer_css_page_size=True)
    assert file.read_bytes().startswith(b"%PDF")
    assert page.noted == []
