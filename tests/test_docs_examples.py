"""Examples in the docs run: every page's commands and Python, in their order, with a tiny model for the demo model.

Sizes are cut down behind the reader's back (`MOST`), so that what runs is what is printed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import inspect
import io
import json
import re
import shlex
import shutil
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import transformers
from jaxtyping import config
from matplotlib.figure import Figure
from samples import TOWNS, write_corpus
from test_docs import COMMANDS, DOCS, FLAGS, ROOT
from zoo import GQA

import trueprune
from trueprune.audits.instruments import INSTRUMENTS
from trueprune.cli.main import run
from trueprune.plans.registry import ALLOCATIONS, METHODS

# At most so much of everything.
MOST = {
    "nsamples": 4,
    "seqlen": 32,
    "per_dataset": 8,
    "max_tokens": 128,
    "window": 64,
    "repeats": 1,
    "resamples": 20,
    "items": 10,
    "qa_items": 10,
    "explained": 1,
    "samples": 6,
    "naopc_words": 2,
    "new_tokens": 2,
    "eavss_shuffles": 20,
    "prompt_tokens": 16,
    "decode_tokens": 2,
    "timing_rounds": 2,
    "steps": 2,
    "batch": 2,
    "pairs": 2,
}
# Of these 0 means all.
ZERO_IS_ALL = {"per_dataset", "max_tokens", "items", "qa_items", "explained"}
FEWER = {
    "protocols": ("grouped",),
    "probes": ("logistic",),
    "attributions": ("lime", "random"),
    "metrics": ("ece-15", "brier"),
    "drops": "0,4",
}

# What does not run, by a part of it, and why.
NOT_RUN = {
    "lm-eval:": "rows come from the hub",
    " --ray": "starts Ray, which has tests of its own",
}


@dataclass(frozen=True)
class Example:
    """A command, a piece of Python, or a file that is shown."""

    kind: str
    text: str
    where: str
    title: str = ""


def examples_of(page: Path) -> list[Example]:
    """What stands on a page in fences, and commands that are indented, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for block in re.finditer(r"^```(\w*)(?: title=\"([^\"]+)\")?\n(.*?)^```|^((?: {4}\S[^\n]*\n)+)", text, re.S | re.M):
        where = f"{page.name}:{text[: block.start()].count(chr(10)) + 1}"
        language, title, fenced, indented = block.groups()
        if language == "toml" and not title and "[[check]]" in fenced:
            title = "gate.toml"
        if title:
            found.append(Example("file", fenced, where, title))
        elif language == "python":
            found.append(Example("python", fenced, where))
        elif language in ("sh", None):
            lines = (fenced or indented).replace("\\\n", " ").splitlines()
            calls = [line.split(" #")[0].strip() for line in lines]
            found += [Example("command", call, where) for call in calls if re.match(r"([A-Z_]+=\S+ )*trueprune ", call)]
    return found


EXAMPLES = {page: examples_of(page) for page in DOCS if page.name != "CHANGELOG.md"}
PAGES = [page for page, found in EXAMPLES.items() if {"python", "command"} & {example.kind for example in found}]


def reason_not_to_run(example: Example) -> str | None:
    return next((reason for part, reason in NOT_RUN.items() if part in example.text), None)


# The tiny model, and the models that pages take for granted


@pytest.fixture(scope="module")
def dense(tokenizer, tmp_path_factory):
    """A tiny Llama deep enough to lose layers, with an MLP as wide as exports want it."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**{**GQA, "num_hidden_layers": 9, "intermediate_size": 256})
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.1)
        # Engines want attention in the first block, so that no ranking may take it.
        model.model.layers[0].self_attn.o_proj.weight.mul_(20)
    folder = tmp_path_factory.mktemp("docs") / "demo"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def _little_garbage():
    """Jobs collect garbage after every model; without this each time through all that a test session holds."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


CAST = (
    "trueprune prune demo -o runs/wanda --method wanda",
    "trueprune prune demo -o runs/tplo --method tplo",
    "trueprune prune demo -o runs/owl --method owl",
    "trueprune drop demo -o runs/third --what attention --fraction 0.34",
)


@pytest.fixture(scope="module")
def cast(dense, tmp_path_factory):
    """A folder with the models that pages begin with."""
    folder = tmp_path_factory.mktemp("cast")
    with pytest.MonkeyPatch.context() as monkeypatch:
        make_small(monkeypatch, dense)
        monkeypatch.chdir(folder)
        for call in CAST:
            assert run(shlex.split(call)[1:]) == 0
    write_corpus(folder / "corpus.txt")
    (folder / "reviews.jsonl").write_text(MORE_ROWS["reviews.jsonl"])
    for example in EXAMPLES[ROOT / "docs" / "sweeps.md"]:
        if example.kind == "file":
            (folder / example.title).write_text(example.text)
    c4 = folder / "data" / "allenai__c4" / "en" / "train.jsonl"
    c4.parent.mkdir(parents=True)
    c4.write_text("".join(json.dumps({"text": f"Page {n}. " + "The mill stands idle. " * 9}) + "\n" for n in range(9)))
    return folder


def _more_rows() -> dict[str, str]:
    """What files of a page are gone on with, where a few rows are too few to be divided into sides and resampled."""
    questions = [{"question": f"What is {n} and {n}?", "right": [str(2 * n)], "wrong": [str(n)]} for n in range(1, 40)]
    sides = ("negative", "positive")
    reviews = [{"text": f"Visit {n} was fine.", "options": sides, "gold": sides[n % 2]} for n in range(120)]
    statements = [
        f"The town of {town} {verb} in the {side}.,{int((side == 'north') == (verb == 'is'))},towns,{polarity},{town}"
        for town in TOWNS
        for side in ("north", "south")
        for verb, polarity in (("is", "affirmative"), ("is not", "negated"))
    ]
    return {
        "questions.jsonl": "".join(json.dumps(row) + "\n" for row in questions),
        "reviews.jsonl": "".join(json.dumps(row) + "\n" for row in reviews),
        "statements.csv": "\n".join(statements) + "\n",
    }


MORE_ROWS = _more_rows()


def make_small(monkeypatch, dense):
    """Cut every option down wherever it is made, and let `demo` be the tiny model."""
    for name in trueprune.__all__:
        getattr(trueprune, name)
    modules = [module for name, module in sys.modules.items() if name.startswith("trueprune.")]
    functions = {inspect.unwrap(f) for module in modules for f in vars(module).values() if inspect.isroutine(f)}
    functions = [f for f in functions if inspect.isfunction(f)]
    options = {
        type(value) for f in functions for value in (*(f.__defaults__ or ()), *(f.__kwdefaults__ or {}).values())
    }
    options = {kind for kind in options if dataclasses.is_dataclass(kind)}

    def smaller(value):
        return dataclasses.replace(value) if type(value) in options else value

    for kind in options:
        for field in dataclasses.fields(kind):
            monkeypatch.setattr(field, "default", _at_most(field.name, field.default))
        monkeypatch.setattr(kind, "__init__", _smaller(kind.__init__))
    for function in functions:
        monkeypatch.setattr(function, "__defaults__", tuple(map(smaller, function.__defaults__ or ())) or None)
        for name, value in (function.__kwdefaults__ or {}).items():
            # Pages show the same output twice: as a command and in Python.
            monkeypatch.setitem(function.__kwdefaults__, name, True if name == "overwrite" else smaller(value))
    # What `repair` compares with to see whether anything was asked for.
    repair = sys.modules["trueprune.jobs.repair"]
    monkeypatch.setattr(repair, "QUESTIONS", smaller(repair.QUESTIONS))
    for module in modules:
        if hasattr(module, "demo_folder"):
            monkeypatch.setattr(module, "demo_folder", lambda: dense)
    # Drawing is most of the time, and has tests of its own.
    monkeypatch.setattr(Figure, "savefig", lambda self, file, **how: Path(file).touch())
    for registry in (ALLOCATIONS, METHODS, INSTRUMENTS):
        for name in registry:
            monkeypatch.setitem(registry, name, registry[name])


def _smaller(original):
    def init(self, *args, **kwargs):
        original(self, *args, **kwargs)
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _at_most(field.name, getattr(self, field.name)))

    return init


def _at_most(name, value):
    most = MOST.get(name)
    if most is not None and isinstance(value, int) and (value > most or (value == 0 and name in ZERO_IS_ALL)):
        return most
    if name in FEWER and isinstance(value, (str, tuple)) and len(value) > len(FEWER[name]):
        return FEWER[name]
    return value


# The tests


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_examples_of_a_page_run(page, cast, dense, tmp_path, monkeypatch, capfd):
    shutil.copytree(cast, tmp_path, dirs_exist_ok=True)
    make_small(monkeypatch, dense)
    monkeypatch.chdir(tmp_path)
    namespace: dict = {"__name__": "docs"}
    for example in EXAMPLES[page]:
        if example.kind == "file":
            Path(example.title).write_text(example.text + MORE_ROWS.get(example.title, ""), encoding="utf-8")
    for example in EXAMPLES[page]:
        if example.kind == "command" and reason_not_to_run(example) is None:
            run_command(example, monkeypatch, capfd)
        if example.kind == "python" and reason_not_to_run(example) is None:
            run_python(example, namespace)


def run_command(example, monkeypatch, capfd):
    words = shlex.split(example.text)
    while words[0] != "trueprune":
        monkeypatch.setenv(*words.pop(0).split("=", 1))
    words = ["demo" if word in ("MODEL", "DENSE") else word for word in words[1:]]
    if "-o" in words and "--overwrite" in FLAGS[words[0]]:
        words.append("--overwrite")
    capfd.readouterr()
    with _unchecked():
        code = run(words)
    said = capfd.readouterr()
    # A tiny random model keeps no gate.
    judged = words[0] == "sweep" or {"--gate", "--profile"} & set(words)
    assert code in ((0, 1) if judged else (0,)), f"{example.where}: {said.err}"
    assert said.out.strip(), example.where
    if "-o" in words:
        assert any(Path(words[words.index("-o") + 1]).iterdir()), example.where


@contextlib.contextmanager
def _unchecked():
    """What commands pass on inside is checked by other tests, and checking is half of the time. Python is checked."""
    config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        config.update("jaxtyping_disable", False)


def run_python(example, namespace):
    said = io.StringIO()
    with contextlib.redirect_stdout(said), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile("\n" * int(example.where.split(":")[1]) + example.text, example.where, "exec"), namespace)
    shown = re.findall(r"^print\(", example.text, re.M)
    assert len(said.getvalue().splitlines()) >= len(shown), example.where


def test_pages_with_examples_are_found():
    names = {page.name for page in PAGES}
    assert {"README.md", "tutorial.md", "confidence.md", "prune.md", "audit.md", "extend.md"} <= names
    everything = [example for found in EXAMPLES.values() for example in found]
    assert {example.text.split("trueprune ")[1].split()[0] for example in everything if example.kind == "command"} >= (
        set(COMMANDS) - {"demo"}
    )
    assert sum(example.kind == "python" for example in everything) >= 15


@pytest.mark.parametrize("part", NOT_RUN)
def test_no_reason_is_stale(part):
    assert any(part in example.text for found in EXAMPLES.values() for example in found)
