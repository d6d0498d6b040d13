"""The documentation site: it builds without a warning, shows every page and name, and fetches nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest
import yaml
from test_docs import COMMANDS, FLAGS, ROOT

import trueprune

# Tags that make a browser fetch what they name.
FETCHING = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "object": "data",
    "link": "href",
}
# Links of a head that say something and fetch nothing.
SAYING = {"canonical", "prev", "next", "alternate"}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def nav_pages(entry) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    inner = entry.values() if isinstance(entry, dict) else entry
    return [page for part in inner for page in nav_pages(part)]


def test_every_page_is_in_the_navigation_once():
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    pages = sorted(str(file.relative_to(ROOT / "docs")) for file in (ROOT / "docs").rglob("*.md"))
    assert sorted(nav_pages(config["nav"])) == pages


class _Fetches(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found: list[str] = []
        self.links = 0

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.links += tag == "a"
        if tag == "link" and values.get("rel") in SAYING:
            return
        if where := values.get(FETCHING.get(tag, "")):
            self.found.append(where)


def test_no_page_fetches_anything_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) >= 30
    for page in pages:
        parser = _Fetches()
        parser.feed(page.read_text(encoding="utf-8"))
        assert len(parser.found) >= 3
        assert [where for where in parser.found if re.match(r"([a-z]+:)?//", where)] == [], page
    styles = [file.read_text(encoding="utf-8") for file in site.rglob("*.css")]
    assert styles
    assert not [url for style in styles for url in re.findall(r"(?:url\(|@import )['\"]?(?:https?:)?//[^)]*", style)]


def test_the_site_names_no_machine(site):
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.findall(r"(?<![\w.~/-])/(?:work|root|home|tmp|mnt|Users)/\w+", text), page


def test_every_public_name_is_described_once(site):
    anchors = re.findall(
        r'<h\d id="(trueprune\.[\w.]+)"', "".join(file.read_text() for file in (site / "reference").glob("*.html"))
    )
    public = [getattr(trueprune, name) for name in trueprune.__all__ if name != "__version__"]
    assert len(public) > 100
    assert [thing for thing in public if anchors.count(f"{thing.__module__}.{thing.__qualname__}") != 1] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_is_described(site, command):
    text = (site / "reference" / "commands.html").read_text(encoding="utf-8")
    section = text.split(f'id="trueprune-{command}"')[1].split("<h2 ")[0]
    described = set(re.findall(r"<code>(-[\w-]+)", section))
    assert {flag for flag in FLAGS[command] if not flag.startswith("--no-")} <= described
