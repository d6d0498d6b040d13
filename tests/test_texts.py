"""Texts: what is drawn for calibration, where it comes from, and what is said when it cannot be had."""

from __future__ import annotations

import csv
import json
import os
import re
import sys
import types

import pytest
import torch
from samples import write_corpus, write_statements

from trueprune._support.errors import ModelError, TextError
from trueprune.models.load import LoadedModel
from trueprune.texts import CalibrationOptions, calibration_tokens, enrich, load_statements, select
from trueprune.texts.rows import embedded_file, hub_rows, read_documents
from trueprune.texts.sources import SourceContext, documents
from trueprune.texts.tokens import TokenBatch

DATA = os.environ.get("TRUEPRUNE_DATA")
needs_data = [pytest.mark.data, pytest.mark.skipif(not DATA, reason="TRUEPRUNE_DATA is not set")]


def draw(tiny, **options):
    return calibration_tokens(tiny, CalibrationOptions(**{"nsamples": 4, "seqlen": 32, **options}))


def token_ids(tiny, text):
    return list(tiny.tokenizer(text)["input_ids"])


def contains(whole, part):
    return any(whole[i : i + len(part)] == part for i in range(len(whole) - len(part) + 1))


def is_crop_of_packed(row, texts):
    """Whether a row is the end of a text, then whole texts, then the beginning of one."""

    def goes_on(position):
        left = row[position:]
        if not left or any(ids[: len(left)] == left for ids in texts):
            return True
        return any(left[: len(ids)] == ids and goes_on(position + len(ids)) for ids in texts)

    if any(contains(ids, row) for ids in texts):
        return True
    return any(row[:n] == ids[-n:] and goes_on(n) for ids in texts for n in range(1, min(len(row), len(ids)) + 1))


@pytest.fixture
def corpus(tmp_path):
    return write_corpus(tmp_path / "corpus.txt")


# Drawing


@pytest.mark.parametrize("form", ["concat", "document"])
def test_shape_and_origin(tiny, form):
    batch = draw(tiny, format=form)
    assert batch.ids_NT.shape == (4, 32)
    assert batch.ids_NT.dtype == torch.int64
    assert batch.mask_NT is None
    assert batch.lengths == [32] * 4
    assert (batch.origin["sources"], batch.origin["drawn"]) == (["embedded"], {"embedded": 4})
    assert json.loads(json.dumps(batch.origin))["seed"] == 0


@pytest.mark.parametrize("form", ["concat", "document", "single"])
def test_draws_follow_the_seed(tiny, form):
    first, again, other = (draw(tiny, format=form, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.ids_NT, again.ids_NT)
    assert first.hash == again.hash
    assert first.hash != other.hash
    assert not torch.equal(first.ids_NT, other.ids_NT)


def test_a_further_source_leaves_the_first_as_it_was(tiny, corpus):
    alone = draw(tiny, sources=("embedded",), nsamples=3)
    both = draw(tiny, sources=("embedded", str(corpus)), nsamples=6)
    assert torch.equal(both.ids_NT[:3], alone.ids_NT)
    assert not torch.equal(both.ids_NT[3:], alone.ids_NT)


@pytest.mark.parametrize(
    ("weights", "nsamples", "counts"),
    [(("=3", ""), 4, (3, 1)), (("=1", "=2.5"), 7, (2, 5)), (("", ""), 5, (3, 2)), (("=0.5", "=0.5"), 2, (1, 1))],
)
def test_samples_are_shared_out_by_weight(tiny, corpus, weights, nsamples, counts):
    other = write_corpus(corpus.with_name("b.txt"), 9)
    names = (str(corpus), str(other))
    batch = draw(tiny, sources=tuple(n + w for n, w in zip(names, weights, strict=True)), nsamples=nsamples)
    assert batch.origin["drawn"] == dict(zip(names, counts, strict=True))
    assert len(batch.ids_NT) == nsamples


@pytest.mark.parametrize("weight", ["0", "-1", "nan", "inf"])
def test_weights_must_be_positive(tiny, weight):
    with pytest.raises(TextError, match=f"embedded={weight} .*is not a positive number"):
        draw(tiny, sources=(f"embedded={weight}", "enriched-embedded"))


def test_too_few_samples_for_the_sources(tiny, corpus):
    with pytest.raises(TextError, match="1 samples are too few"):
        draw(tiny, sources=("embedded", str(corpus)), nsamples=1)


def test_concat_rows_are_crops_of_packed_texts(tiny, corpus):
    texts = [token_ids(tiny, text) for text in read_documents(corpus)]
    batch = draw(tiny, sources=(str(corpus),), nsamples=12, seqlen=100)
    assert all(is_crop_of_packed(row, texts) for row in batch.ids_NT.tolist())
    assert not any(contains(ids, row) for ids in texts for row in batch.ids_NT.tolist())
    assert not is_crop_of_packed(batch.ids_NT[0].flip(0).tolist(), texts)


def test_document_rows_come_from_one_text(tiny):
    texts = [token_ids(tiny, text) for text in read_documents(embedded_file("calibration.jsonl"))]
    batch = draw(tiny, format="document", nsamples=6, seqlen=48)
    assert all(any(contains(ids, row) for ids in texts) for row in batch.ids_NT.tolist())


@pytest.mark.parametrize("side", ["left", "right"])
def test_single_rows_are_one_text_each(tiny, corpus, side):
    texts = [token_ids(tiny, text) for text in read_documents(corpus)]
    batch = draw(tiny, sources=(str(corpus),), format="single", padding_side=side, seqlen=120, nsamples=5)
    assert batch.mask_NT is not None
    assert batch.ids_NT.shape == batch.mask_NT.shape == (5, 120)
    rows = []
    for ids, mask, length in zip(batch.ids_NT, batch.mask_NT, batch.lengths, strict=True):
        real = slice(0, length) if side == "right" else slice(120 - length, None)
        assert 0 < length < 120
        assert mask[real].all()
        assert int(mask.sum()) == length
        assert ids[real].tolist() in texts
        rows.append(ids[real].tolist())
    assert len({tuple(row) for row in rows}) == 5


def test_single_rows_are_cut(tiny, corpus):
    batch = draw(tiny, sources=(str(corpus),), format="single", seqlen=8)
    assert batch.mask_NT is None
    starts = [token_ids(tiny, text)[:8] for text in read_documents(corpus)]
    assert all(row in starts for row in batch.ids_NT.tolist())
    with pytest.raises(TextError, match="has 20 texts, fewer than 21 samples"):
        draw(tiny, sources=(str(corpus),), format="single", seqlen=8, nsamples=21)


def test_seqlen_over_the_limit(tiny):
    with pytest.raises(TextError, match=r"seqlen 257 is over the model's limit of 256 positions\. Use --seqlen 256"):
        draw(tiny, seqlen=257)


@pytest.mark.parametrize("options", [{"nsamples": 0}, {"seqlen": 1}])
def test_no_calibration_set(tiny, options):
    with pytest.raises(TextError, match="is no calibration set"):
        draw(tiny, **options)


def test_corpora_that_are_empty_or_too_short(tiny, tmp_path):
    empty, short = tmp_path / "empty.txt", tmp_path / "short.txt"
    empty.write_text(" \n\n \n")
    short.write_text("Hello there.")
    with pytest.raises(TextError, match=r"empty\.txt holds no text"):
        draw(tiny, sources=(str(empty),))
    with pytest.raises(TextError, match=r"short\.txt holds \d+ tokens, fewer than seqlen 32\. Lower --seqlen"):
        draw(tiny, sources=(str(short),))
    with pytest.raises(TextError, match=r"no text of .*short\.txt has more than 32 tokens"):
        draw(tiny, sources=(str(short),), format="document")


def test_unknown_sources_and_missing_files(tiny, tmp_path):
    with pytest.raises(TextError, match=r"unknown calibration source 'c5'\. Use embedded, c4, .*path of a text file"):
        draw(tiny, sources=("c5",))
    with pytest.raises(TextError, match="no text file at"):
        draw(tiny, sources=(str(tmp_path / "none.txt"),))
    with pytest.raises(TextError, match="no calibration source"):
        draw(tiny, sources=())
    with pytest.raises(TextError, match=r"cannot read 'hf:org/name'\. Write hf:ORG"):
        draw(tiny, sources=("hf:org/name",))


def test_a_model_without_a_tokenizer_is_named(tiny):
    with pytest.raises(ModelError, match="has no tokenizer"):
        draw(LoadedModel(tiny.model, None, "bare"))


def test_token_batches_are_checked():
    ids = torch.ones(2, 3, dtype=torch.long)
    with pytest.raises(TextError, match="all padding"):
        TokenBatch(ids, torch.tensor([[True, True, True], [False, False, False]]))
    with pytest.raises(TextError, match="have the shape"):
        TokenBatch(torch.ones(0, 3, dtype=torch.long))
    assert TokenBatch(ids).hash == TokenBatch(ids, torch.ones(2, 3, dtype=torch.bool)).hash
    assert TokenBatch(ids).hash != TokenBatch(ids + 1).hash


# Files


def write_rows(folder, kind, column):
    rows = [{"id": str(i), column: f"text number {i}"} for i in range(3)]
    file = folder / f"rows.{kind}"
    if kind == "jsonl":
        file.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    elif kind == "csv":
        with file.open("w", newline="") as handle:
            writer = csv.DictWriter(handle, ["id", column])
            writer.writeheader()
            writer.writerows(rows)
    else:
        parquet = pytest.importorskip("pyarrow.parquet")
        table = pytest.importorskip("pyarrow").Table.from_pylist(rows)
        parquet.write_table(table, file)
    return file


@pytest.mark.parametrize("column", ["text", "body"])
@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_tabular_files(tiny, tmp_path, kind, column):
    file = write_rows(tmp_path, kind, column)
    name = str(file) if column == "text" else f"{file}:{column}"
    expected = ["text number 0", "text number 1", "text number 2"]
    assert documents(name, SourceContext(tiny, 0, 0)) == expected
    with pytest.raises(TextError, match=f"no column 'other'; its columns are id, {column}.*rows.{kind}:COLUMN"):
        documents(f"{file}:other", SourceContext(tiny, 0, 0))


def test_text_files_have_entries(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("One\n two \n\n\n\nThree\n")
    assert read_documents(file) == ["One two", "Three"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.doc", b"x", "neither .txt, .jsonl, .csv nor .parquet"),
        ("a.txt", b"\xff\xfe\xfa", "is not UTF-8 text"),
        ("a.jsonl", b'{"text": "\xff"}', "is not UTF-8 text"),
        ("a.jsonl", b'{"text": "x"}\n{"text', "line 2 is not JSON"),
        ("a.jsonl", b"[1]\n", "line 1 is no JSON object"),
        ("a.csv", b"text\n\xff\xff\n", "is not a UTF-8 CSV file"),
        ("a.csv", b"a,b\nx,y,z\n", "no column 'text'; its columns are a, b"),
        ("a.csv", b"", "holds no text"),
        ("a.parquet", b"PAR", "is no parquet file"),
    ],
)
def test_unreadable_files_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TextError, match=message) as caught:
        read_documents(tmp_path / name)
    assert name in str(caught.value)


# Sources


def test_statements_that_calibrate_are_those_that_choose(tiny):
    texts = documents("statements", SourceContext(tiny, 0, 0))
    everything = load_statements("embedded")
    assert sorted(texts) == sorted(select(everything, "choose").texts)
    assert not set(texts) & set(select(everything, "audit").texts)
    assert texts == documents("truth_is_universal", SourceContext(tiny, 0, 0))
    assert texts != documents("statements", SourceContext(tiny, 1, 0))


def test_statements_of_another_collection(tiny, tmp_path):
    file = write_statements(tmp_path / "mine.csv")
    batch = draw(tiny, sources=("statements",), statements=str(file), format="single", seqlen=16)
    chosen = [token_ids(tiny, text)[:16] for text in select(load_statements(str(file)), "choose").texts]
    assert batch.mask_NT is None
    assert all(row in chosen for row in batch.ids_NT.tolist())
    assert batch.origin["statements"] == str(file)


def test_the_models_own_texts(tiny):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, again, other = (documents("self", SourceContext(tiny, seed, 100)) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert first == again
    assert first != other
    assert sum(len(token_ids(tiny, text)) for text in first) >= 100
    assert torch.equal(draw(tiny, sources=("self",)).ids_NT, draw(tiny, sources=("self",)).ids_NT)


ROWS = [
    {"question": " Is it? ", "best_answer": "It is.", "incorrect_answers": ["It is not.", "Maybe"]},
    {"question": "Who?", "best_answer": "Nobody", "incorrect_answers": []},
]


@pytest.mark.parametrize(
    ("variant", "texts"),
    [
        ("true", ["It is.", "Nobody."]),
        (
            "correction",
            [
                "It is not, which is false; the correct answer is: It is.",
                "Maybe, which is false; the correct answer is: It is.",
            ],
        ),
        (
            "question",
            [
                "Is it? It is not, which is false; the correct answer is: It is.",
                "Is it? Maybe, which is false; the correct answer is: It is.",
            ],
        ),
    ],
)
def test_enrichment_word_for_word(variant, texts):
    assert enrich(ROWS, variant) == texts


def test_enrichment_needs_its_columns():
    with pytest.raises(TextError, match="no column 'best_answer'"):
        enrich([{"question": "Who?"}])


def test_embedded_enrichment(tiny):
    texts = documents("enriched-embedded", SourceContext(tiny, 0, 0, enrichment="question"))
    assert len(texts) >= 50
    assert all(re.search(r"\? .+, which is false; the correct answer is: .+\.$", text) for text in texts)


def test_embedded_texts_do_not_overlap():
    def runs(name):
        words = [re.findall(r"\w+", text.lower()) for text in read_documents(embedded_file(name))]
        return {tuple(w[i : i + 12]) for w in words for i in range(len(w) - 11)}

    calibration, held_out = runs("calibration.jsonl"), runs("heldout.jsonl")
    assert len(calibration) > 5000
    assert len(held_out) > 2000
    assert not calibration & held_out


# The mirror and the hub


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    folder = tmp_path / "mirror"
    files = {
        "allenai__c4/en/train.jsonl": [{"text": f"Web page {i}.", "url": "u"} for i in range(3)],
        "Salesforce__wikitext/wikitext-2-raw-v1/test.jsonl": [{"text": " = Title = \n"}, {"text": " \n"}],
        "truthfulqa__truthful_qa/generation/validation.jsonl": ROWS,
        "org__name/default/dev.jsonl": [{"body": "a"}, {"body": ""}, {"body": "b"}],
    }
    for name, rows in files.items():
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text("\n".join(json.dumps(row) for row in rows))
    monkeypatch.setenv("TRUEPRUNE_DATA", str(folder))
    monkeypatch.setitem(sys.modules, "datasets", None)
    return folder


def test_sources_read_the_mirror(tiny, mirror):
    context = SourceContext(tiny, 0, 0)
    assert documents("c4", context) == ["Web page 0.", "Web page 1.", "Web page 2."]
    assert documents("enriched-truthfulqa", context) == enrich(ROWS, "correction")
    assert documents("enriched_truth_qa", context) == enrich(ROWS, "correction")
    assert documents("hf:org/name:dev:body", context) == ["a", "b"]
    with pytest.raises(TextError, match="no column 'text'; there are body"):
        documents("hf:org/name/default:dev:text", context)
    assert hub_rows("allenai/c4", "en", "train", limit=2) == [{"text": f"Web page {i}.", "url": "u"} for i in range(2)]


def test_wikitexts_test_split_is_taken_with_a_warning(tiny, mirror):
    with pytest.warns(UserWarning, match="spoils perplexity on wikitext2"):
        assert documents("wikitext2", SourceContext(tiny, 0, 0)) == [" = Title = \n"]
    other = mirror / "Salesforce__wikitext/wikitext-2-raw-v1/train.jsonl"
    other.write_text('{"text": "train"}\n')
    assert documents("wikitext2", SourceContext(tiny, 0, 0)) == ["train"]


def test_without_the_hubs_library(tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(TextError, match=r"no rows of allenai/c4 .*Set TRUEPRUNE_DATA, .*--calibration embedded"):
        draw(tiny, sources=("c4",))


def test_without_the_hub(tiny, monkeypatch):
    def load_dataset(*_args, **_options):
        raise ConnectionError("cannot reach the hub\nsecond line")

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    message = r"gave no rows of allenai/c4 \(en, train\): cannot reach the hub\. Check the network, set TRUEPRUNE_DATA"
    with pytest.raises(TextError, match=message):
        draw(tiny, sources=("c4",))


def test_hub_rows_are_streamed(monkeypatch):
    asked = []

    def load_dataset(*names, **options):
        asked.append((names, options))
        return ({"text": str(i)} for i in range(10**9))

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    assert hub_rows("org/name", "en", "train", limit=2) == [{"text": "0"}, {"text": "1"}]
    assert asked == [(("org/name", "en"), {"split": "train", "streaming": True})]


class TestRealRows:
    pytestmark = needs_data

    @pytest.fixture(autouse=True)
    def _mirror(self, monkeypatch):
        monkeypatch.setenv("TRUEPRUNE_DATA", DATA)

    def test_papers_recipe(self, tiny):
        batch = draw(tiny, sources=("c4", "enriched-truthfulqa"), nsamples=8, seqlen=128)
        assert batch.origin["drawn"] == {"c4": 4, "enriched-truthfulqa": 4}
        assert batch.ids_NT.shape == (8, 128)

    def test_truthfulqa(self, tiny):
        context = SourceContext(tiny, 0, 0, enrichment="true")
        assert len(documents("enriched-truthfulqa", context)) == 817
        assert len(documents("enriched-truthfulqa", SourceContext(tiny, 0, 0))) > 2 * 817
