"""Statements: the embedded collection, its two sides, and CSV files of other people."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict

import numpy as np
import pytest

from trueprune._support.errors import TextError
from trueprune.texts import Statement, StatementSet, load_statements, select
from trueprune.texts.csv_statements import read_statement_file, read_statement_folder
from trueprune.texts.facts import TEMPLATES
from trueprune.texts.rows import embedded_file, read_csv

# conftest takes the variable away from every test; those that need real rows set it again.
DATA = os.environ.get("TRUEPRUNE_DATA")
needs_data = [pytest.mark.data, pytest.mark.skipif(not DATA, reason="TRUEPRUNE_DATA is not set")]

EMBEDDED = load_statements("embedded")
ENGLISH = [row for row in EMBEDDED if row.language == "en" and row.polarity in ("affirmative", "negated")]


def parts(statements):
    return {part for row in statements for part in row.group.split("|")}


# The embedded collection


def test_at_least_six_topics_of_both_polarities():
    sizes = Counter((row.topic, row.polarity) for row in ENGLISH)
    topics = {topic for topic, _ in sizes}
    assert len(topics) >= 6
    assert min(sizes[topic, polarity] for topic in topics for polarity in ("affirmative", "negated")) >= 120


def test_true_and_false_are_balanced_in_every_dataset():
    labels = defaultdict(list)
    for row in EMBEDDED:
        labels[row.topic, row.polarity, row.language].append(row.label)
    assert all(np.mean(values) == 0.5 for key, values in labels.items() if key[1] in ("affirmative", "negated"))
    compounds = {key: np.mean(values) for key, values in labels.items() if key[1] in ("conjunction", "disjunction")}
    assert len(compounds) >= 12
    assert all(0.45 <= share <= 0.55 for share in compounds.values())
    assert labels["scenarios", "scenario", "en"].count(1) == labels["scenarios", "scenario", "en"].count(0) >= 20


def test_every_fact_is_four_statements():
    groups = defaultdict(list)
    for row in EMBEDDED:
        if row.polarity in ("affirmative", "negated"):
            groups[row.group, row.language].append(row)
    assert len(groups) >= 6 * 60
    for rows in groups.values():
        assert Counter((row.polarity, row.label) for row in rows) == {
            (polarity, label): 1 for polarity in ("affirmative", "negated") for label in (0, 1)
        }
        assert len({(row.topic, row.language) for row in rows}) == 1


def without_not(text):
    """A negated sentence as it was before: `does not mean` -> `means`, `is not` -> `is`."""
    text = re.sub(r"\bdoes not (\w+)", r"\1s", text)
    return re.sub(r" not\b", "", text)


@pytest.mark.parametrize("topic", list(TEMPLATES))
def test_a_negation_is_its_statement_with_not(topic):
    rows = [row for row in ENGLISH if row.topic == topic]
    affirmed = {row.text: row for row in rows if row.polarity == "affirmative"}
    negated = [row for row in rows if row.polarity == "negated"]
    assert len(affirmed) == len(negated) > 0
    for row in negated:
        assert " not " in row.text
        partner = affirmed[without_not(row.text)]
        assert (row.label, row.group) == (1 - partner.label, partner.group)


def test_negations_of_free_facts_are_aligned():
    rows = defaultdict(dict)
    for row in ENGLISH:
        if row.topic == "facts":
            rows[row.group][row.polarity, row.label] = row.text
    for index, fact in enumerate(read_csv(embedded_file("free_facts.csv"))):
        texts = rows[f"facts:{index}"]
        assert texts["affirmative", 1] == fact["true"]
        assert texts["affirmative", 0] == fact["false"]
        assert texts["negated", 0] == fact["negated_true"]
        assert texts["negated", 1] == fact["negated_false"]
        for plain, negated in (("true", "negated_true"), ("false", "negated_false")):
            assert re.search(r"\b(not|cannot)\b", fact[negated])
            # The words are the same but for the verb, its auxiliary, and articles that go with it.
            kept = set(re.findall(r"\w+", fact[plain].lower())) & set(re.findall(r"\w+", fact[negated].lower()))
            assert len(kept) >= len(set(re.findall(r"\w+", fact[plain].lower()))) - 2


def test_no_statement_repeats():
    assert [text for text, n in Counter(text.lower() for text in EMBEDDED.texts).items() if n > 1] == []


def test_right_and_wrong_differ():
    for name in ("facts.csv", "facts_de.csv"):
        assert [row for row in read_csv(embedded_file(name)) if row["right"].lower() == row["wrong"].lower()] == []
    assert [row for row in read_csv(embedded_file("free_facts.csv")) if row["true"] == row["false"]] == []


@pytest.mark.parametrize("polarity", ["conjunction", "disjunction"])
def test_labels_of_compounds_follow_from_their_parts(polarity):
    label_of = {row.text.rstrip(".").lower(): row for row in ENGLISH if row.polarity == "affirmative"}
    words = ("both", "and") if polarity == "conjunction" else ("either", "or")
    compounds = [row for row in EMBEDDED if row.polarity == polarity]
    assert len(compounds) >= 6 * 20
    for row in compounds:
        prefix = f"it is the case {words[0]} that "
        text = row.text.lower().rstrip(".")
        assert text.startswith(prefix)
        splits = list(re.finditer(f" {words[1]} that ", text))
        found = [
            (label_of[a], label_of[b])
            for m in splits
            if (a := text[len(prefix) : m.start()]) in label_of and (b := text[m.end() :]) in label_of
        ]
        assert len(found) == 1, row.text
        first, second = found[0]
        assert row.label == (min if polarity == "conjunction" else max)(first.label, second.label)
        assert row.group == f"{first.group}|{second.group}"
        assert first.group != second.group


def test_parts_keep_the_capitals_of_names():
    text = " ".join(row.text for row in EMBEDDED if row.topic == "people" and row.polarity == "conjunction")
    firsts = re.findall(r" that (\w)", text)
    assert len(firsts) > 40
    assert all(first.isupper() for first in firsts)


def test_german_is_there():
    german = EMBEDDED.where(lambda row: row.language == "de")
    assert len(german) >= 400
    assert set(german.topics) == {"cities", "elements", "animals"}
    assert german.labels.mean() == 0.5
    # A fact that is told in both languages is one group, so it is on one side in both.
    assert "cities:Madrid" in parts(german) & parts(ENGLISH)
    assert {"elements:hydrogen", "animals:wolf", "cities:Cologne"} <= parts(german) & parts(ENGLISH)
    assert any("nicht" in text or "kein" in text for text in german.texts)


def test_scenarios_come_in_pairs():
    groups = defaultdict(list)
    for row in EMBEDDED:
        if row.polarity == "scenario":
            groups[row.group].append(row)
    assert all(sorted(row.label for row in rows) == [0, 1] for rows in groups.values())
    assert all(rows[0].text.split(" Human: ")[0] == rows[1].text.split(" Human: ")[0] for rows in groups.values())


# The two sides


def test_the_sides_share_no_fact():
    choose, audit = select(EMBEDDED, "choose"), select(EMBEDDED, "audit")
    assert not parts(choose) & parts(audit)
    assert not set(choose.texts) & set(audit.texts)
    assert set(choose.languages) == {"en"}
    assert set(choose.polarities) == {"affirmative", "negated"}
    assert set(audit.polarities) == {"affirmative", "negated", "conjunction", "disjunction", "scenario"}
    assert 0.2 < len(choose) / len(ENGLISH) < 0.4
    assert len(choose) + sum(row.polarity in ("affirmative", "negated") and row.language == "en" for row in audit) == (
        len(ENGLISH)
    )


def test_the_sides_do_not_depend_on_what_else_is_there():
    again = select(load_statements("embedded"), "choose")
    assert again.rows == select(EMBEDDED, "choose").rows
    cities = EMBEDDED.where(lambda row: row.topic == "cities")
    assert set(select(cities, "choose").texts) == {row.text for row in again if row.topic == "cities"}


def test_the_papers_selection_uses_cities_and_translations():
    choose = select(EMBEDDED, "choose", "paper")
    assert set(choose.topics) == {"cities", "translations"}
    assert len(choose) == sum(row.topic in ("cities", "translations") for row in ENGLISH)
    assert select(EMBEDDED, "audit", "paper").rows == EMBEDDED.rows


def test_too_small_a_side_is_refused():
    one = EMBEDDED.where(lambda row: row.group == EMBEDDED[0].group)
    sides = []
    for side in ("choose", "audit"):
        try:
            sides.append(len(select(one, side)))
        except TextError as error:
            assert f"the side '{side}'" in str(error) and "--selection paper" in str(error)
    assert len(sides) == 1


def test_statement_sets_are_sequences():
    some = EMBEDDED[:4]
    assert isinstance(some, StatementSet) and len(some) == 4
    assert EMBEDDED.take([3, 1]).texts == [EMBEDDED[3].text, EMBEDDED[1].text]
    assert some.labels.tolist() == [row.label for row in some]


# CSV files


def write(folder, name, text):
    file = folder / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


@pytest.fixture
def universal(tmp_path):
    """Files in the columns of Truth is Universal."""
    words = [("gato", "cat", 1), ("perro", "horse", 0), ("casa", "house", 1), ("mesa", "bread", 0)]
    plain = "\n".join(f"The Spanish word '{s}' means '{e}'.,{label}" for s, e, label in words)
    negated = "\n".join(f"The Spanish word '{s}' does not mean '{e}'.,{1 - label}" for s, e, label in words)
    both = (
        "It is the case both that the Spanish word 'gato' means 'cat' and that the Spanish word 'mesa' means 'bread'."
    )
    german = "Das spanische Wort 'gato' bedeutet 'Katze'.,1\nDas spanische Wort 'mesa' bedeutet 'Brot'.,0"
    write(tmp_path, "sp_en_trans.csv", f"statement,label\n{plain}\n")
    write(tmp_path, "neg_sp_en_trans.csv", f"statement,label\n{negated}\n")
    write(tmp_path, "sp_en_trans_conj.csv", f"statement,label\n{both},0\n")
    write(tmp_path, "sp_en_trans_de.csv", f"statement,label\n{german}\n")
    write(
        tmp_path,
        "cities.csv",
        "statement,label,city,country,correct_country\n"
        "The city of Lodz is in Poland.,1,Lodz,Poland,Poland\n"
        'The city of Lodz is in "Japan".,0.0,Lodz,Japan,Poland\n',
    )
    write(tmp_path / "real_world_scenarios", "all_unambiguous_replies.csv", "statement,label\nYou sell. A: No,0\nx,\n")
    write(tmp_path / "real_world_scenarios", "other.csv", "statement,label\nnot read,1\n")
    return tmp_path


def test_truth_is_universal_files_are_understood(universal):
    rows = read_statement_folder(universal)
    kinds = Counter((row.topic, row.polarity, row.language) for row in rows)
    assert kinds == {
        ("cities", "affirmative", "en"): 2,
        ("sp_en_trans", "affirmative", "en"): 4,
        ("sp_en_trans", "negated", "en"): 4,
        ("sp_en_trans", "conjunction", "en"): 1,
        ("sp_en_trans", "affirmative", "de"): 2,
        ("real_world_scenarios", "scenario", "en"): 1,
    }
    by_text = {row.text: row for row in rows}
    assert by_text["The city of Lodz is in Poland."].group == "cities:Lodz"
    assert [by_text[t].label for t in ("The city of Lodz is in Poland.", 'The city of Lodz is in "Japan".')] == [1, 0]
    plain = [row.group for row in rows if row.polarity == "affirmative" and row.topic == "sp_en_trans"][:4]
    assert plain == [row.group for row in rows if row.polarity == "negated"]
    assert len(set(plain)) == 4
    (both,) = (row for row in rows if row.polarity == "conjunction")
    assert set(both.group.split("|")) == {plain[0], plain[3]}
    assert load_statements(str(universal)).texts == rows.texts


def test_free_sentences_share_their_group_by_row(tmp_path):
    write(tmp_path, "facts.csv", "statement,label\nSnow melts in spring.,1\nDogs lay eggs.,0\n")
    write(tmp_path, "neg_facts.csv", "statement,label\nSnow does not melt in spring.,0\nDogs do not lay eggs.,1\n")
    rows = read_statement_folder(tmp_path)
    groups = {row.text: row.group for row in rows}
    assert groups["Snow melts in spring."] == groups["Snow does not melt in spring."] == "facts:row 0"
    assert groups["Dogs lay eggs."] == groups["Dogs do not lay eggs."] == "facts:row 1"


def test_a_sentence_that_repeats_is_one_fact(tmp_path):
    """Else the side that chooses and the side that audits could hold the same sentence."""
    plain = ["Snow melts.", "Dogs lay eggs.", "Bees make honey.", "Glass burns.", "snow melts."]
    negated = [
        "Snow does not melt.",
        "No dog lays eggs.",
        "No bee makes honey.",
        "Glass never burns.",
        "No snow melts.",
    ]
    for name, texts in (("facts.csv", plain), ("neg_facts.csv", negated)):
        write(tmp_path, name, "statement,label\n" + "".join(f"{text},1\n" for text in texts))
    groups = {row.text: row.group for row in read_statement_folder(tmp_path)}
    snow = {groups[text] for text in ("Snow melts.", "snow melts.", "Snow does not melt.", "No snow melts.")}
    assert snow == {"facts:row 0"}
    assert groups["No dog lays eggs."] == "facts:row 1"


def test_own_columns_are_used(tmp_path):
    file = write(
        tmp_path,
        "mine.csv",
        "text,label,topic,polarity,language,group\n"
        "Gold is heavy.,1,metals,affirmative,en,gold\nGold ist nicht schwer.,0,metals,negated,de,gold\n",
    )
    assert read_statement_file(file).rows == (
        Statement("Gold is heavy.", 1, "metals", "affirmative", "en", "gold"),
        Statement("Gold ist nicht schwer.", 0, "metals", "negated", "de", "gold"),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("text,truth\nx,1\n", "no column 'label'; its columns are text, truth"),
        ("", r"no column 'label'; its columns are \(none\)"),
        ("sentence,label\nx,1\ny,0\n", "neither a column 'text' nor 'statement'"),
        ("text,label\nx,yes\n", "row 1: the label is 'yes'"),
        ("text,label\nx,1\ny,2\n", "row 2: the label is '2'"),
        ("text,label\nx,nan\n", "row 1: the label is 'nan'"),
        ("text,label\n,1\n", "row 1 has no sentence"),
        ("text,label,polarity\nx,1,maybe\n", "row 1: unknown polarity 'maybe'"),
        ("text,label\nx,1\ny,1\n", "only the label 1"),
        ("text,label\n", "no rows"),
        ("text,label\nx\ny,1\n", "only the label 1"),
    ],
)
def test_bad_files_are_named(tmp_path, text, message):
    file = write(tmp_path, "bad.csv", text)
    with pytest.raises(TextError, match=message) as caught:
        load_statements(str(file))
    assert "bad.csv" in str(caught.value)
    assert caught.value.remedy


def test_missing_statements_are_named(tmp_path):
    with pytest.raises(TextError, match="holds no CSV file"):
        load_statements(str(tmp_path))
    with pytest.raises(TextError, match="no statements at 'nowhere'"):
        load_statements("nowhere")
    with pytest.raises(TextError, match=r"not here\. Set TRUEPRUNE_DATA"):
        load_statements("truth-is-universal")
    (tmp_path / "latin.csv").write_bytes("text,label\nSão,1\n".encode("latin-1"))
    with pytest.raises(TextError, match=r"latin\.csv is not a UTF-8 CSV file"):
        load_statements(str(tmp_path / "latin.csv"))


def test_a_wrong_data_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("TRUEPRUNE_DATA", str(tmp_path / "gone"))
    with pytest.raises(TextError, match=r"TRUEPRUNE_DATA is .*gone"):
        load_statements("truth-is-universal")


# Real rows


@pytest.fixture(scope="module")
def real():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRUEPRUNE_DATA", DATA)
        return load_statements("truth-is-universal")


class TestTruthIsUniversal:
    pytestmark = needs_data

    def test_counts(self, real):
        # (rows, true rows) of each file, as in the authors' repository.
        expected = {
            "cities": ((1496, 748), (1496, 748)),
            "sp_en_trans": ((354, 177), (354, 177)),
            "inventors": ((406, 229), (406, 177)),
            "animal_class": ((164, 80), (164, 84)),
            "element_symb": ((186, 93), (186, 93)),
            "facts": ((561, 279), (561, 282)),
        }
        rows = Counter((row.topic, row.polarity) for row in real)
        true = Counter((row.topic, row.polarity) for row in real if row.label)
        for topic, counts in expected.items():
            for polarity, count in zip(("affirmative", "negated"), counts, strict=True):
                assert (rows[topic, polarity], true[topic, polarity]) == count
        assert {row.topic for row in real if row.polarity != "scenario"} == set(expected)
        assert (rows["cities", "conjunction"], true["cities", "conjunction"]) == (1498, 750)
        assert (rows["facts", "disjunction"], true["facts", "disjunction"]) == (500, 231)
        scenario = ("real_world_scenarios", "scenario")
        assert (rows[scenario], true[scenario]) == (104, 55)

    def test_negations_share_groups_and_complement_labels(self, real):
        for topic in set(real.topics) - {"real_world_scenarios"}:
            plain, negated = (
                [row for row in real if row.topic == topic and row.polarity == polarity]
                for polarity in ("affirmative", "negated")
            )
            assert [row.group for row in plain] == [row.group for row in negated]
            assert [row.label for row in plain] == [1 - row.label for row in negated]

    def test_compounds_are_tied_to_all_their_facts(self, real):
        groups = {row.group for row in real if row.polarity == "affirmative"}
        compounds = [row for row in real if row.polarity in ("conjunction", "disjunction")]
        assert len(compounds) == 1498 + 5 * 500 + 6 * 500
        assert all(set(row.group.split("|")) <= groups for row in compounds)
        both = [row for row in compounds if row.polarity == "conjunction" and row.topic == "cities"]
        cities = defaultdict(set)
        for row in real:
            if row.topic == "cities" and row.polarity == "affirmative":
                cities[re.sub(r"The city of (.+) is in .+", r"\1", row.text)].add(row.group)
        for row in both:
            named = re.findall(r"[Tt]he city of (.+?) is in ", row.text)
            assert len(named) == 2
            for city in named:
                assert cities[city] <= set(row.group.split("|"))

    def test_the_sides_share_no_fact(self, real):
        choose, audit = select(real, "choose"), select(real, "audit")
        assert not parts(choose) & parts(audit)
        assert not set(choose.texts) & set(audit.texts)
        assert len(set(choose.topics)) == 6
