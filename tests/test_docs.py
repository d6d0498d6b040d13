"""The docs say what is there: links, flags, commands."""

from __future__ import annotations

import importlib
import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest

import trueprune
from trueprune.cli.main import app
from trueprune.plans.contrasts import VARIANTS
from trueprune.repairs.healing import WAYS
from trueprune.texts.qa import QUESTION_SETS

ROOT = Path(__file__).parent.parent
DOCS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS = ("prune", "drop", "scan", "audit", "report", "repair", "study", "sweep", "estimate", "export", "demo")
# Commands of others, whose flags are not ours.
FOREIGN = ("pip ", "main.py", "generate_acts.py", "git ", "python", "make ", "srun ", "#SBATCH ")
FOREIGN_FLAGS = {"--help", "--version"}
every_doc = pytest.mark.parametrize("file", DOCS, ids=lambda file: str(file.relative_to(ROOT)))


def code_of(text: str) -> list[str]:
    """Code: what stands in fences, indented by four, or between backticks, a line or a span each."""
    found: list[str] = []
    for fence in re.findall(r"^```.*?\n(.*?)^```", text, re.S | re.M):
        found += fence.replace("\\\n", " ").splitlines()
    text = re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
    found += [line.strip() for line in re.findall(r"^ {4}\S.*$", text, re.M)]
    text = re.sub(r"^ {4}\S.*$", "", text, flags=re.M)
    return found + [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]


def commands_in(text: str) -> list[str]:
    """The lines of code that call trueprune, without their comments."""
    lines = [line.split(" #")[0].strip() for line in code_of(text)]
    calls = [re.sub(r"^(?:[A-Z_]+=\S+ )+", "", part.strip()) for line in lines for part in re.split(r"[;|&]+", line)]
    return [call for call in calls if re.match(rf"trueprune\s+({'|'.join(COMMANDS)})\b", call)]


def spellings(command: str) -> set[str]:
    """All flags of a command, old spellings and `--no-` included."""
    function = importlib.import_module(f"trueprune.cli.{command}").command
    names: set[str] = set()
    for parameter in function.__signature__.parameters.values():
        for flag in getattr(parameter.annotation, "__metadata__", ()):
            names.update(flag.name or ())
            if flag.negative_bool:
                names.update(f"--no-{name[2:]}" for name in flag.name if name.startswith("--"))
    return names


FLAGS = {command: spellings(command) for command in COMMANDS}
EVERY_FLAG = set().union(*FLAGS.values()) | FOREIGN_FLAGS


def flags_in(code: str) -> list[str]:
    return re.findall(r"(?<![\w-])--[A-Za-z][\w-]*", code)


def test_flags_were_collected():
    assert {"--output", "--lam", "--Lamda", "--calibration", "--plan", "--device-map"} <= FLAGS["prune"]
    assert {"--no-balance", "--probes"} <= FLAGS["audit"]
    assert "--plan" not in FLAGS["scan"]
    assert all(file.is_file() for file in DOCS)
    assert len(DOCS) >= 8


def anchors_of(text: str) -> set[str]:
    """Of its headings, as code hosts and as the site spell them."""
    titles = [re.sub(r"[^\w\- ]", "", title.lower()).strip() for title in re.findall(r"^#+ (.*)$", text, re.M)]
    return {title.replace(" ", "-") for title in titles} | {re.sub(r"[- ]+", "-", title) for title in titles}


@every_doc
def test_relative_links_lead_somewhere(file):
    text = file.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"[a-z]+:", link)]
    broken = []
    for link in links:
        path, _, anchor = link.partition("#")
        target = file.parent / path if path else file
        if not target.exists() or (anchor and anchor not in anchors_of(target.read_text(encoding="utf-8"))):
            broken.append(link)
    assert broken == []


def test_the_readme_leads_to_every_doc():
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        links = re.findall(r"\]\(([^)\s#:]+\.md)(?:#[^)\s]*)?\)", page.read_text(encoding="utf-8"))
        found = {(page.parent / link).resolve() for link in links}
        waiting += [link for link in found if link.is_file() and link not in reached]
    assert [file for file in DOCS if "docs" in file.parts and file not in reached] == []


@every_doc
def test_no_placeholder_and_no_machine_is_left(file):
    text = file.read_text(encoding="utf-8")
    assert re.findall(r"@@\w*|\bTODO\b|\bFIXME\b|\bXXX\b|\bTBD\b", text) == []
    assert re.findall(r"(?<![\w.~])/(?:work|root|home|tmp|mnt|Users)/\S*", text) == []


@every_doc
def test_every_flag_that_is_named_is_a_flag(file):
    code = [part for part in code_of(file.read_text(encoding="utf-8")) if not part.startswith(FOREIGN)]
    unknown = {flag for part in code for flag in flags_in(part) if flag not in EVERY_FLAG}
    assert unknown == set()


@every_doc
def test_every_command_has_the_flags_that_it_is_given(file):
    wrong = []
    for call in commands_in(file.read_text(encoding="utf-8")):
        command = call.split()[1]
        wrong += [f"{command} {flag}" for flag in flags_in(call) if flag not in FLAGS[command] | FOREIGN_FLAGS]
    assert wrong == []


def calls_of_paper_scripts() -> list[str]:
    """The commands of docs/paper-scripts.md, with each recipe that `CAL` may stand for."""
    text = (ROOT / "docs" / "paper-scripts.md").read_text(encoding="utf-8")
    recipes = re.findall(r"`CAL` is `([^`]+)`", text) + re.findall(r"instead of `CAL`: `([^`]+)`", text)
    calls = []
    for call in commands_in(text):
        if " CAL" not in call:
            calls.append(call)
            continue
        # A collection of statements is named once, whether for the allocation or for the calibration.
        said_once = [recipe for recipe in recipes if not set(flags_in(call)) & set(flags_in(recipe))]
        assert said_once, f"nothing says what CAL is in {call}"
        calls += [call.replace("CAL", recipe) for recipe in said_once]
    return calls


def whole_commands(file: Path) -> list[str]:
    """Commands that could be typed as they stand: those that write into a folder of the examples, and estimates."""
    calls = commands_in(file.read_text(encoding="utf-8"))
    return [call for call in calls if " -o runs/" in call or re.match(r"trueprune estimate (demo|MODEL)", call)]


# The tables of the scripts abbreviate, and have a reader of their own.
TYPED = [call for file in DOCS if file.name != "paper-scripts.md" for call in whole_commands(file)]


def test_typed_commands_are_found():
    found = {call.split()[1] for call in TYPED}
    assert found == set(COMMANDS) - {"demo"}
    assert any("--with contrastive" in call for call in TYPED)
    assert any("--instruments truthfulness open-qa" in call for call in TYPED)


@pytest.mark.parametrize("call", dict.fromkeys([*calls_of_paper_scripts(), *TYPED]))
def test_commands_parse(call):
    words = shlex.split(call.replace("...", ""))[1:]
    assert "CAL" not in words
    command, bound, ignored = app.parse_args(words, exit_on_error=False, print_error=False)
    assert command is importlib.import_module(f"trueprune.cli.{words[0]}").command
    # A flag that is parsed is bound to a parameter under some name; none is left over.
    assert len(bound.arguments) >= len({flag for flag in words if flag.startswith("-")})
    assert ignored == {}


@every_doc
def test_names_in_python_exist(file):
    fences = re.findall(r"^```python\n(.*?)^```", file.read_text(encoding="utf-8"), re.S | re.M)
    missing = []
    for dotted in set(re.findall(r"(?<![\w\"/.])trueprune((?:\.\w+)+)", "\n".join(fences))):
        found = trueprune
        for name in dotted.strip(".").split("."):
            if found is not None and not hasattr(found, name) and find_spec(f"{found.__name__}.{name}"):
                importlib.import_module(f"{found.__name__}.{name}")
            found = getattr(found, name, None)
        missing += [dotted] if found is None else []
    assert missing == []


@pytest.mark.parametrize("name", [*QUESTION_SETS, *VARIANTS, *WAYS])
def test_what_can_be_chosen_is_in_the_methods(name):
    rows = re.findall(r"^\| `([^`]+)`", (ROOT / "docs" / "methods.md").read_text(encoding="utf-8"), re.M)
    assert name in rows


def test_paper_scripts_are_found():
    calls = calls_of_paper_scripts()
    assert len(calls) >= 10
    assert {call.split()[1] for call in calls} == {"prune", "scan", "audit"}


def test_old_spellings_that_are_named_exist():
    text = (ROOT / "docs" / "paper-scripts.md").read_text(encoding="utf-8")
    introduction = text.split("\n|")[0]
    named = {flag for span in re.findall(r"`([^`]+)`", introduction) for flag in flags_in(span)}
    assert len(named) >= 8
    assert named <= FLAGS["prune"]
