"""Which statements a probe is trained on and which it is tested on, so that no fact is seen on both sides."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

import numpy as np

from trueprune._support.errors import AuditError
from trueprune.texts.statements import StatementSet


@dataclass(frozen=True, eq=False)
class Split:
    """Row numbers of a statement set.

    **Arguments:**

    - `name`: `"repeat-0"`, a topic, or the kind of statements in the test set.
    - `train`: training rows, int64, in ascending order.
    - `test`: test rows, int64, in ascending order.
    """

    name: str
    train: np.ndarray
    test: np.ndarray


def grouped_splits(
    statements: StatementSet, repeats: int = 5, train_share: float = 0.7, seed: int = 0, *, balance: bool = True
) -> list[Split]:
    """Random splits of the English affirmative and negated statements, by fact.

    Statements that share a part of their group (or their text) form one unit, transitively; within each topic
    `train_share` of the units go to training. A topic of one unit is trained on.

    **Arguments:**

    - `statements`: the statements.
    - `repeats`: number of splits, each drawn afresh.
    - `train_share`: share of each topic's units in the training set.
    - `seed`: seed of the draws.
    - `balance`: cut the training set to equally many rows per dataset, as in `balanced`.

    **Returns:**

    `repeats` splits, named `"repeat-0"` and so on. The test rows are all those of the other units.
    """
    rows = _plain_rows(statements)
    units = link_units(statements, rows)
    topic_of = {unit: statements.rows[members[0]].topic for unit, members in _members(units, rows).items()}
    if len(topic_of) == len(set(topic_of.values())):
        raise AuditError(
            f"{statements.name}: no topic has two groups to split among {len(rows)} affirmative and negated statements",
            "Give statements about more facts, or set their `group` so that unrelated facts differ",
        )
    splits = []
    for repeat in range(repeats):
        rng = np.random.default_rng([seed, repeat])
        chosen: set[int] = set()
        for topic in sorted(set(topic_of.values())):
            of_topic = rng.permutation([unit for unit, its_topic in topic_of.items() if its_topic == topic])
            n_train = max(1, min(round(train_share * len(of_topic)), len(of_topic) - 1))
            chosen.update(of_topic[:n_train].tolist())
        in_train = np.array([unit in chosen for unit in units], dtype=bool)
        train = rows[in_train]
        splits.append(
            Split(f"repeat-{repeat}", balanced(statements, train, rng) if balance else train, rows[~in_train])
        )
    return splits


def leave_one_topic_out(statements: StatementSet, *, balance: bool = True, seed: int = 0) -> list[Split]:
    """One split a topic of the English affirmative and negated statements: test on it, train on the others.

    Training statements that share a part of their group with a test statement are left out.

    **Arguments:**

    - `statements`: the statements.
    - `balance`, `seed`: as in `grouped_splits`.

    **Returns:**

    One split a topic, named after it; none where there is only one topic.
    """
    rows = _plain_rows(statements)
    units, topics = link_units(statements, rows), statements.topics[rows]
    names = sorted(set(topics.tolist()))
    splits = []
    for number, topic in enumerate(names if len(names) > 1 else []):
        held_out = topics == topic
        train = rows[~held_out & ~np.isin(units, units[held_out])]
        rng = np.random.default_rng([seed, number])
        splits.append(Split(topic, balanced(statements, train, rng) if balance else train, rows[held_out]))
    return splits


def transfer_splits(statements: StatementSet, *, balance: bool = True, seed: int = 0) -> list[Split]:
    """Train on all English affirmative and negated statements; test on other kinds, one split each.

    The test sets are `"conjunction"`, `"disjunction"` and `"scenario"` (English), and `"language-de"` and the like (all
    statements in another language), where there are such statements. As in arXiv 2407.12831, compound statements and
    translations reuse facts of the training topics: this measures transfer to another *form*, not to unseen facts.

    **Arguments:**

    - `statements`: the statements.
    - `balance`, `seed`: as in `grouped_splits`.

    **Returns:**

    One split a kind, all with the same training rows; none where there are no statements of other kinds.
    """
    tests: dict[str, list[int]] = defaultdict(list)
    for row, statement in enumerate(statements):
        if statement.language != "en":
            tests[f"language-{statement.language}"].append(row)
        elif statement.polarity not in ("affirmative", "negated"):
            tests[statement.polarity].append(row)
    train = _plain_rows(statements)
    if balance:
        train = balanced(statements, train, np.random.default_rng([seed]))
    return [Split(name, train, np.array(tests[name], dtype=np.int64)) for name in sorted(tests)]


def balanced(statements: StatementSet, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random subset with equally many rows in every dataset (topic x polarity), up to the size of a unit.

    The size is that of the smallest dataset, and whole units are drawn, so that a fact comes with its negation
    (arXiv 2407.12831 draws the same row numbers from the affirmative and the negated file).

    **Arguments:**

    - `statements`: the statements.
    - `rows`: row numbers to draw from.
    - `rng`: the source of randomness.

    **Returns:**

    Row numbers, ascending.
    """
    dataset_of = {int(row): (statements.rows[row].topic, statements.rows[row].polarity) for row in rows}
    size = min(Counter(dataset_of.values()).values(), default=0)
    units = _members(link_units(statements, rows), rows)
    taken: Counter[tuple[str, str]] = Counter()
    kept: list[int] = []
    for unit in rng.permutation(list(units)):
        added = Counter(dataset_of[row] for row in units[int(unit)])
        if all(taken[dataset] + n <= size for dataset, n in added.items()):
            kept += units[int(unit)]
            taken += added
    return np.array(sorted(kept), dtype=np.int64)


def link_units(statements: StatementSet, rows: np.ndarray) -> np.ndarray:
    """Number the connected components of rows under "shares a part of the group, or the text".

    **Arguments:**

    - `statements`: the statements; parts of a group are joined by `|`; an empty group has no parts.
    - `rows`: row numbers, of shape `(n,)`.

    **Returns:**

    One component a row, of shape `(n,)`; components are numbered by their first row.
    """
    parent = list(range(len(rows)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    first_with: dict[tuple[str, str], int] = {}
    for i, row in enumerate(rows):
        statement = statements.rows[row]
        keys = [("text", statement.text), *(("part", part) for part in statement.group.split("|") if part)]
        for key in keys:
            a, b = root(i), root(first_with.setdefault(key, i))
            parent[max(a, b)] = min(a, b)
    return np.array([root(i) for i in range(len(rows))], dtype=np.int64)


def _plain_rows(statements: StatementSet) -> np.ndarray:
    return np.flatnonzero([row.is_probing for row in statements])


def _members(units: np.ndarray, rows: np.ndarray) -> dict[int, list[int]]:
    members: dict[int, list[int]] = defaultdict(list)
    for unit, row in zip(units.tolist(), rows.tolist(), strict=True):
        members[unit].append(row)
    return dict(members)
