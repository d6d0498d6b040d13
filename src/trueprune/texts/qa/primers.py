"""Solved questions that stand before the one that is asked: our own, TruthfulQA's published ones, or a user's."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from trueprune._support.errors import TextError
from trueprune.texts.rows import embedded_file

PRIMERS = ("none", "own", "published")
INSTEAD = "pip install 'trueprune[lm-eval]', or give --primer own, none or a text file"
# In the place of the question, to see where lm-eval puts it.
_HERE = "<here>"
_ASKED = f"\n\nQ: {_HERE}\nA:"


def primer_text(primer: str) -> str:
    """The text of a primer, without white space around it.

    **Arguments:**

    - `primer`: `none`; `own`, six questions written for this package in the form of the published ones, one of which
        makes no sense and is answered by "I have no comment."; `published`, those of TruthfulQA (arXiv 2109.07958,
        appendix E), read from the installed package lm-eval; or the path of a text file.

    **Returns:** `""` for `none`.

    **Raises:** `TextError` for a file that is missing or empty, or an lm-eval that is missing or holds no such primer.
    """
    if primer == "none":
        return ""
    if primer == "published":
        return _published()
    path = embedded_file("primer.txt") if primer == "own" else Path(primer)
    if not path.is_file():
        raise TextError(f"no primer at {primer!r}", f"Use {', '.join(PRIMERS)}, or the path of a text file")
    try:
        text = path.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError as error:
        raise TextError(f"the primer {path} is not UTF-8 text ({error})", "Save it as UTF-8") from error
    if not text:
        raise TextError(f"the primer {path} is empty", "Write solved questions into it, or use --primer none")
    return text


def _published() -> str:
    """What lm-eval puts before TruthfulQA's questions: its own template with a question of ours, less that question.

    The package is only looked up, not imported, and its template is filled in a sandbox.
    """
    spec = find_spec("lm_eval")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    if not folders:
        raise TextError("the published primer is read from the package lm-eval, which is missing", INSTEAD)
    file = Path(folders[0]) / "tasks" / "truthfulqa" / "truthfulqa_mc1.yaml"
    if not file.is_file():
        raise TextError(f"this version of lm-eval has no {file.name}, which holds the published primer", INSTEAD)
    import yaml
    from jinja2 import TemplateError
    from jinja2.sandbox import SandboxedEnvironment

    try:
        template = yaml.safe_load(file.read_text(encoding="utf-8"))["doc_to_text"]
        text = SandboxedEnvironment(keep_trailing_newline=True).from_string(template).render(question=_HERE)
    except (yaml.YAMLError, TemplateError, KeyError, TypeError) as error:
        raise TextError(f"lm-eval's {file.name} cannot be read ({str(error)[:120]})", INSTEAD) from error
    if not text.endswith(_ASKED) or not text.startswith("Q: "):
        raise TextError(f"lm-eval's {file.name} holds no primer in the published form (Q: ... A: ...)", INSTEAD)
    return text.removesuffix(_ASKED)
