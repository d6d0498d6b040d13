"""Collections of statements: the embedded one, Truth is Universal's folder, any CSV file or folder of them."""

from __future__ import annotations

from pathlib import Path

from trueprune._support.errors import TextError
from trueprune.texts.csv_statements import read_statement_file, read_statement_folder
from trueprune.texts.facts import embedded_statements
from trueprune.texts.rows import data_folder
from trueprune.texts.statements import StatementSet

TRUTH_IS_UNIVERSAL = "truth-is-universal"


def load_statements(name: str = "embedded") -> StatementSet:
    """A collection of true/false statements.

    **Arguments:**

    - `name`: `"embedded"`, `"truth-is-universal"` (the folder `truth_is_universal` of `TRUEPRUNE_DATA`; arXiv
        2407.12831), or the path of a CSV file or of a folder of CSV files.

    **Raises:** `TextError`, also when all statements have one label.
    """
    if name == "embedded":
        statements = embedded_statements()
    elif name == TRUTH_IS_UNIVERSAL:
        mirror = data_folder()
        if mirror is None or not (mirror / "truth_is_universal").is_dir():
            raise TextError(
                "Truth is Universal's statements are not here",
                "Set TRUEPRUNE_DATA to a folder that holds truth_is_universal/*.csv, or use --statements embedded",
            )
        everything = read_statement_folder(mirror / "truth_is_universal")
        negated = {row.topic for row in everything if row.polarity == "negated"}
        # The paper's six topics are those that come with negations; its other sets are not used for probing.
        statements = everything.where(lambda row: row.topic in negated or row.polarity == "scenario")
    elif Path(name).is_dir():
        statements = read_statement_folder(Path(name))
    elif Path(name).is_file():
        statements = read_statement_file(Path(name))
    else:
        raise TextError(f"no statements at {name!r}", "Use embedded, truth-is-universal, or the path of a CSV file")
    labels = set(statements.labels.tolist())
    if len(labels) < 2:
        found = "no rows" if not labels else f"only the label {labels.pop()}"
        raise TextError(f"the statements {name} hold {found}", "Give both true (1) and false (0) statements")
    return statements
