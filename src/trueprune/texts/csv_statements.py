"""Read statements from CSV files: our own columns, or those of Truth is Universal (arXiv 2407.12831)."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

from trueprune._support.errors import TextError
from trueprune.texts.rows import read_csv
from trueprune.texts.statements import POLARITIES, Statement, StatementSet


def read_statement_folder(folder: Path) -> StatementSet:
    """All statements of a folder of CSV files, in file-name order; `neg_X.csv` shares its groups with `X.csv`.

    Of a subfolder `real_world_scenarios` the file `all_unambiguous_replies.csv` is read.

    **Raises:** `TextError`.
    """
    files = sorted(folder.glob("*.csv"))
    scenarios = folder / "real_world_scenarios" / "all_unambiguous_replies.csv"
    if scenarios.is_file():
        files.append(scenarios)
    if not files:
        raise TextError(f"{folder} holds no CSV file", "Give a folder of statement files")
    rows = [row for file in files for row in _read(file)]
    return StatementSet(_tie_compounds(_tie_repeats(rows)), folder.name)


def read_statement_file(file: Path) -> StatementSet:
    """Statements of one CSV file.

    Needs `label` (1 true, 0 false) and `text` or `statement`. The columns `topic`, `polarity`, `language` and `group`
    are used where they are; else topic, polarity and language come from the file name (`neg_cities_de.csv`), and
    the group from the subject of the sentence.

    **Raises:** `TextError` that names a missing column or a label that is neither 0 nor 1.
    """
    return StatementSet(_tie_repeats(_read(file)), file.stem)


def _read(file: Path) -> list[Statement]:
    rows = read_csv(file, required=("label",))
    if rows and "text" not in rows[0] and "statement" not in rows[0]:
        raise TextError(f"{file} has neither a column 'text' nor 'statement'", "Rename the column of the sentences")
    rows = [row for row in rows if (row["label"] or "").strip()]
    topic, polarity, language = _from_name(file)
    texts = [(row.get("text") or row.get("statement") or "").strip() for row in rows]
    subjects = _subjects(file, rows, texts, polarity)
    statements = []
    for index, (row, text, subject) in enumerate(zip(rows, texts, subjects, strict=True)):
        if not text:
            raise TextError(f"{file}, row {index + 1} has no sentence", "Remove the row")
        row_topic = row.get("topic") or topic
        row_polarity = row.get("polarity") or polarity
        if row_polarity not in POLARITIES:
            raise TextError(
                f"{file}, row {index + 1}: unknown polarity {row_polarity!r}", f"Use {', '.join(POLARITIES)}"
            )
        group = row.get("group") or f"{row_topic}:{subject}"
        label = _label(row["label"], file, index)
        statements.append(Statement(text, label, row_topic, row_polarity, row.get("language") or language, group))
    return statements


def _tie_repeats(rows: list[Statement]) -> list[Statement]:
    """Give sentences that occur several times one group, and with them all that was in their groups."""
    merged: dict[str, str] = {}

    def root(group: str) -> str:
        while group in merged:
            group = merged[group]
        return group

    first: dict[str, str] = {}
    for row in rows:
        if "|" not in row.group:
            one, other = root(row.group), root(first.setdefault(row.text.lower(), row.group))
            if one != other:
                merged[one] = other
    return [replace(row, group="|".join(dict.fromkeys(map(root, row.group.split("|"))))) for row in rows]


def _tie_compounds(rows: list[Statement]) -> list[Statement]:
    """Give a conjunction or disjunction the groups of all facts of its topic that it speaks of."""
    phrases: dict[str, dict[str, str]] = {}
    for row in rows:
        if row.polarity == "affirmative":
            subject = row.group.partition(":")[2]
            phrase = row.text.rstrip(".") if subject.startswith("row ") else subject
            phrases.setdefault(row.topic, {})[phrase.lower()] = row.group
    tied = []
    for row in rows:
        if row.polarity in ("conjunction", "disjunction"):
            text = row.text.lower()
            found = [
                group
                for phrase, group in phrases.get(row.topic, {}).items()
                if phrase in text and re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", text)
            ]
            row = replace(row, group="|".join(dict.fromkeys(found)) or row.group)
        tied.append(row)
    return tied


def _label(text: str, file: Path, index: int) -> int:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if value not in (0.0, 1.0):
        raise TextError(f"{file}, row {index + 1}: the label is {text!r}", "Use 1 for true and 0 for false")
    return int(value)


def _from_name(file: Path) -> tuple[str, str, str]:
    name, polarity, language = file.stem, "affirmative", "en"
    if file.parent.name == "real_world_scenarios":
        return "real_world_scenarios", "scenario", language
    if match := re.fullmatch(r"(.+)_([a-z]{2})", name):
        name, language = match[1], match[2]
    if name.startswith("neg_"):
        name, polarity = name[4:], "negated"
    elif name.endswith("_conj"):
        name, polarity = name[:-5], "conjunction"
    elif name.endswith("_disj"):
        name, polarity = name[:-5], "disjunction"
    return name, polarity, language


def _subjects(file: Path, rows: list[dict[str, str]], texts: list[str], polarity: str) -> list[str]:
    """What each sentence is about, so that all that is said about it is one group.

    A column `city` says it; scenarios share their instruction; else it is the run of words that differs first between
    the sentences of the file. Free sentences have no template: each row is a group, shared with its negation by row.
    """
    if rows and "city" in rows[0]:
        return [row["city"] for row in rows]
    if polarity == "scenario":
        return [re.split(r" [A-Z]\w*: ", text)[0] for text in texts]
    words = [re.findall(r"[^\s]+", text) for text in texts]
    counts = Counter(word for sentence in words for word in set(sentence))
    template = {word for word, count in counts.items() if count > 0.6 * len(words)}
    if len(template - {"The", "the", "is", "not", "a", "an", "in", "of"}) == 0 and "is" not in template:
        return [f"row {index}" for index in range(len(texts))]
    return [_first_run(sentence, template) or f"row {index}" for index, sentence in enumerate(words)]


def _first_run(words: list[str], template: set[str]) -> str:
    run: list[str] = []
    for word in words:
        if word not in template:
            run.append(word)
        elif run:
            break
    return " ".join(run)
