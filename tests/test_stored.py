"""Measurements kept in a file: read back they say the same to the bit, and what is damaged is refused by name."""

from __future__ import annotations

import importlib
import importlib.util
import json
import warnings
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from samples import write_corpus, write_statements
from zoo import tiny_model

from trueprune._support.errors import AuditError, OutputError
from trueprune.audits import AuditOptions, AuditSettings, EfficiencyOptions, ExplanationOptions, Measurement, draws
from trueprune.audits.confidence import null_error
from trueprune.audits.context import AuditContext
from trueprune.audits.draws import cluster_counts, counts_of, fingerprint
from trueprune.audits.qa.options import TruthOptions
from trueprune.audits.stored import read_measurements, read_models, write_measurements, write_models
from trueprune.audits.subject import Subject
from trueprune.jobs.measuring import measure_model
from trueprune.models.load import LoadedModel
from trueprune.reports import AuditedModel, compare, estimate, paired_change
from trueprune.reports.plain import plain
from trueprune.texts.qa import QaOptions
from trueprune.texts.tasks import TaskOptions

DRAWS = {"resamples": 40, "seed": 3}
EVERY = ("perplexity", "lie-detection", "separation", "accuracy", "calibration", "faithfulness", "open-qa")
EVERY += ("truthfulness", "efficiency")
if importlib.util.find_spec("sacrebleu") and importlib.util.find_spec("rouge_score"):
    EVERY += ("truthful-generation",)


@pytest.fixture(scope="module")
def measured(tokenizer, tmp_path_factory):
    """Every instrument on two tiny models, the second against the first."""
    folder = tmp_path_factory.mktemp("texts")
    settings = AuditSettings(
        AuditOptions(
            text=str(write_corpus(folder / "corpus.txt")),
            window=32,
            statements=str(write_statements(folder / "statements.csv")),
            per_dataset=16,
            repeats=1,
            cache=False,
        ),
        timing=EfficiencyOptions(prompt_tokens=32, decode_tokens=2, timing_rounds=3),
        answering=TaskOptions(tasks=("sentiment", "commonsense"), items=12),
        explaining=ExplanationOptions(attributions=("leave-one-out", "random"), explained=3, naopc_words=0),
        asking=QaOptions(qa=("general", "misconceptions"), qa_items=6),
        truth=TruthOptions(new_tokens=4),
    )
    calibration = importlib.import_module("trueprune.audits.calibration")
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        patch.setattr(calibration, "null_error", partial(null_error, draws=20))
        subjects = [Subject(n, LoadedModel(tiny_model("llama", s), tokenizer, n)) for s, n in enumerate("ab")]
        context = AuditContext(settings, subjects[0])
        return [measure_model(subject, context, EVERY) for subject in subjects]


def made(values, metric="accuracy", **options):
    values = np.asarray(values, dtype=np.float64)
    return Measurement("tests", metric, [f"i{n}" for n in range(len(values))], values, **options)


def spread(counts_Rn):
    """A metric that is no mean: the largest value that was drawn, undefined where the last item was not."""
    return np.where(counts_Rn[:, -1] > 0, np.where(counts_Rn > 0, np.arange(6.0), -1).max(1), np.nan)


def same(found, expected):
    """Equal to the bit, NaN included."""
    return np.array_equal(
        np.asarray(found, np.float64).view(np.uint64), np.asarray(expected, np.float64).view(np.uint64)
    )


# What is read is what was written


def test_every_instrument_reads_back_to_the_bit(measured, tmp_path):
    dense, pruned = measured
    assert {m.instrument for m in pruned.measurements} >= {*EVERY}
    for model in measured:
        write_measurements(model.measurements, tmp_path / f"{model.name}.parquet", **DRAWS)
    again = [read_measurements(tmp_path / f"{name}.parquet") for name in "ab"]
    for found, expected in zip([*again[0], *again[1]], [*dense.measurements, *pruned.measurements], strict=True):
        assert (found.instrument, found.metric) == (expected.instrument, expected.metric)
        assert list(found.item_ids) == list(expected.item_ids)
        assert found.clusters is None if expected.clusters is None else list(found.clusters) == list(expected.clusters)
        assert same(found.values, expected.values)
        assert found.weights is None if expected.weights is None else same(found.weights, expected.weights)
        flags = ("reduction", "higher_is_better", "headline")
        assert [getattr(found, name) for name in flags] == [getattr(expected, name) for name in flags]
        assert found.details == json.loads(json.dumps(expected.details))
        assert (found.baseline is None) == (expected.baseline is None)
        assert estimate(found, **DRAWS) == estimate(expected, **DRAWS)
    baselines = [m.metric for m in again[1] if m.baseline is not None]
    assert "prefill-speedup" in baselines
    statistics = {m.instrument for m in again[1] if m.statistic is not None}
    assert {"calibration", "separation", "open-qa"} <= statistics


def test_a_report_of_read_models_is_that_of_the_measured(measured, tmp_path):
    write_models({m.name: m.measurements for m in measured}, tmp_path / "both.parquet", **DRAWS)
    stored = read_models(tmp_path / "both.parquet")
    assert (stored.resamples, stored.seed) == (40, 3)
    before = compare(measured, {}, **DRAWS)
    read = [AuditedModel(name, found) for name, found in stored.models.items()]
    # One that was just measured beside one that was read: in either order.
    for models in (read, [measured[0], read[1]], [read[0], measured[1]]):
        after = compare(models, {}, **DRAWS)
        assert [row.to_json() for row in after.rows] == json.loads(json.dumps([row.to_json() for row in before.rows]))
    assert any(row.change is not None and row.change.value for row in before.rows)


def test_what_was_read_can_be_written_again(measured, tmp_path):
    first, second = tmp_path / "first.parquet", tmp_path / "second.parquet"
    write_measurements(measured[1].measurements, first, **DRAWS)
    write_measurements(read_measurements(first), second, **DRAWS)
    assert first.read_bytes() == second.read_bytes()
    with pytest.raises(AuditError, match=r"stored for --resamples 40 --seed 3 .*first\.parquet"):
        write_measurements(read_measurements(first), second, resamples=40, seed=4)
    assert first.read_bytes() == second.read_bytes()


def test_values_that_are_hard_to_keep(tmp_path):
    hard = [0.1 + 0.2, -0.0, 5e-324, 1.7976931348623157e308, 1 / 3, 1e-17]
    details = {
        "nothing": float("nan"),
        "arrays": {"counts": np.arange(3), "pair": (np.float32(0.5), np.int64(7), np.bool_(True))},
        "path": tmp_path,
        "<script>": "\u2028 ünï",
        5: None,
    }
    ids = ["../../etc", "", "a\nb", "<script>alert(1)</script>", "ключ", "x" * 5000]
    one = Measurement(
        "tests", "m", ids, np.array(hard), np.array([1.0, 0, 0.1, 0, 1e-300, 2]), ["c"] * 6, details=details
    )
    write_measurements([one], tmp_path / "m", **DRAWS)
    (found,) = read_measurements(tmp_path / "m")
    assert list(found.item_ids) == ids
    assert same(found.values, hard)
    assert same(found.weights, one.weights)
    assert np.isnan(found.details.pop("nothing"))
    assert found.details == {
        "arrays": {"counts": [0, 1, 2], "pair": [0.5, 7, True]},
        "path": str(tmp_path),
        "<script>": "\u2028 ünï",
        "5": None,
    }
    write_measurements([], tmp_path / "none", **DRAWS)
    assert read_measurements(tmp_path / "none") == []


def test_undefined_resamples_stay_undefined(tmp_path):
    one = made(np.arange(6.0), statistic=spread, clusters=list("aabbcc"))
    counts_Rn = counts_of(one, 40, 3)
    assert np.isnan(one.resample(counts_Rn)).any()
    write_measurements([one], tmp_path / "m", **DRAWS)
    (found,) = read_measurements(tmp_path / "m")
    assert same(found.resample(counts_Rn), one.resample(counts_Rn))
    assert found.value == one.value == 5


def test_draws_are_those_of_paired_comparisons():
    clusters = np.array([0, 0, 1, 2, 2, 3])
    one = made(np.arange(6.0), clusters=list("aabccd"))
    for resamples, seed in ((10, 0), (50, 7)):
        counts_Rn = counts_of(one, resamples, seed)
        assert np.array_equal(cluster_counts(clusters, resamples, seed), counts_Rn)
        assert estimate(one, resamples=resamples, seed=seed).error == one.resample(counts_Rn).std()


def test_draws_are_made_once_and_nobody_writes_to_them(monkeypatch):
    one, other = made(np.arange(6.0)), made(np.arange(6.0), "other")
    counts_Rn = counts_of(one, 30, 1)
    assert counts_of(other, 30, 1) is counts_Rn
    assert counts_of(one, 30, 2) is not counts_Rn
    assert counts_of(replace(one, clusters=list("aabbcc")), 30, 1) is not counts_Rn
    with pytest.raises(ValueError, match="read-only"):
        counts_Rn[0, 0] = 9
    monkeypatch.setattr(draws, "KEPT_NUMBERS", 10)
    again = counts_of(one, 30, 1)
    assert again is not counts_Rn
    assert np.array_equal(again, counts_Rn)
    # A hash is kept with the array that it is of.
    assert fingerprint(counts_Rn) == fingerprint(counts_Rn) == fingerprint(counts_Rn.copy()) == fingerprint(again)
    mine = np.ones((2, 3))
    before = fingerprint(mine)
    mine[0, 0] = 2
    assert fingerprint(mine) != before


# Draws that were not stored


def test_other_draws_are_refused(tmp_path):
    one = made(np.arange(6.0), statistic=spread)
    write_measurements([one], tmp_path / "m", **DRAWS)
    (found,) = read_measurements(tmp_path / "m")
    assert estimate(found, **DRAWS) == estimate(one, **DRAWS)
    for other in ({"resamples": 41, "seed": 3}, {"resamples": 40, "seed": 0}, {"resamples": 2000, "seed": 0}):
        with pytest.raises(AuditError, match=r"stored for --resamples 40 --seed 3 .*Give that --resamples and --seed"):
            estimate(found, **other)
        with pytest.raises(AuditError, match=r"--resamples 40 --seed 3"):
            paired_change(one, found, **other)
    # Means of items can be drawn anew at any time.
    write_measurements([made([0.0, 1, 1, 0])], tmp_path / "mean", **DRAWS)
    (mean,) = read_measurements(tmp_path / "mean")
    assert estimate(mean, resamples=99, seed=8) == estimate(made([0.0, 1, 1, 0]), resamples=99, seed=8)


def test_draws_of_other_clusters_are_refused(tmp_path):
    one = made(np.arange(6.0), statistic=spread)
    write_measurements([one], tmp_path / "m", **DRAWS)
    (found,) = read_measurements(tmp_path / "m")
    with pytest.raises(AuditError, match="asked for other resamples"):
        estimate(replace(found, clusters=list("aabbcc")), **DRAWS)
    assert fingerprint(np.array([[1.0, 2.0]])) != fingerprint(np.array([[1.0], [2.0]]))
    with pytest.raises(AuditError, match="asked for other resamples"):
        found.resample(np.full((40, 6), 0.5))


# Files that are none


def damaged(how, path):
    data = path.read_bytes()
    middle = len(data) // 4
    path.write_bytes(
        {
            "truncated": data[: len(data) // 2],
            "empty": b"",
            "text": b"model,metric\na,b\n",
            "flipped": data[:middle] + bytes(b ^ 0x5A for b in data[middle : middle + 40]) + data[middle + 40 :],
        }[how]
    )


@pytest.mark.parametrize("how", ["truncated", "empty", "text", "flipped"])
def test_damaged_files_are_refused_by_name(tmp_path, how):
    path = tmp_path / "measurements.parquet"
    values = np.random.default_rng(0).normal(size=400)
    write_measurements([made(values)], path, **DRAWS)
    damaged(how, path)
    with pytest.raises(AuditError, match=r"measurements\.parquet is no file of measurements .*Audit the model again"):
        read_measurements(path)


def test_files_of_others_are_refused(tmp_path):
    path = tmp_path / "m.parquet"
    with pytest.raises(AuditError, match=r"m\.parquet is no file of measurements"):
        read_measurements(path)
    with pytest.raises(AuditError, match="is no file of measurements"):
        read_measurements(tmp_path)
    pq.write_table(pa.table({"model": ["a"]}), path)
    with pytest.raises(AuditError, match=r"m\.parquet .*another program wrote it"):
        read_measurements(path)
    write_measurements([made([1.0, 2])], path, **DRAWS)
    table = pq.read_table(path)
    key = b"trueprune.measurements"
    how = json.loads(table.schema.metadata[key])
    later = table.replace_schema_metadata({key: json.dumps({**how, "schema": 2}).encode()})
    pq.write_table(later, path)
    with pytest.raises(AuditError, match="its schema is 2, this version reads 1"):
        read_measurements(path)
    pq.write_table(table.drop_columns(["weights"]), path)
    with pytest.raises(AuditError, match="its columns are not those"):
        read_measurements(path)


@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [
        ("values", [[1.0]], "1 values for 2 items"),
        ("values", [[1.0, float("nan")]], "not finite"),
        ("values", [None], "a row has no 'values'"),
        ("clusters", [["a"]], "1 clusters for 2 items"),
        ("weights", [[1.0]], "1 weights for 2 items"),
        ("draws", [[1.0, 2.0]], "2 draws where 40 were stored"),
        ("details", ["{"], "no file of measurements"),
        ("details", ["[1]"], "no file of measurements"),
        ("reduction", ["median"], "no reduction 'median'"),
        ("baseline_of", [7], "a baseline belongs to no measurement"),
    ],
)
def test_rows_that_contradict_themselves_are_refused(tmp_path, column, value, problem):
    path = tmp_path / "m.parquet"
    write_measurements([made([1.0, 2])], path, **DRAWS)
    table = pq.read_table(path)
    index = table.schema.get_field_index(column)
    field = table.schema.field(column)
    pq.write_table(table.set_column(index, field, pa.array(value, field.type)), path)
    with pytest.raises(AuditError, match=problem):
        read_measurements(path)


def test_several_models_are_read_by_name(tmp_path):
    path = tmp_path / "m.parquet"
    hostile = "../<script>'\n"
    write_models({"dense": [made([1.0, 2])], hostile: [made([3.0, 4]), made([5.0], "other")]}, path, **DRAWS)
    with pytest.raises(AuditError, match="measurements of 2 models"):
        read_measurements(path)
    assert {name: [m.metric for m in found] for name, found in read_models(path).models.items()} == {
        "dense": ["accuracy"],
        hostile: ["accuracy", "other"],
    }


def test_a_file_is_whole_or_absent(tmp_path, monkeypatch):
    path = tmp_path / "m.parquet"
    write_measurements([made([1.0, 2])], path, **DRAWS)
    before = path.read_bytes()

    def fails(_table, file, **_options):
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", fails)
    with pytest.raises(OutputError, match=r"cannot write .*m\.parquet .*No space left"):
        write_measurements([made([3.0])], path, **DRAWS)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["m.parquet"]
    with pytest.raises(AuditError, match="has no items"):
        write_measurements([made([], statistic=spread)], path, **DRAWS)


def test_halves_of_characters_are_kept_as_reports_show_them(tmp_path):
    half = "half \ud800 of \udfff"
    one = replace(made([0.0, 1.0], half), item_ids=[half, "b"], clusters=[half, "b"], details={"file": half})
    write_models({half: [one]}, tmp_path / "m.parquet", resamples=20, seed=0)
    ((name, (found,)),) = read_models(tmp_path / "m.parquet").models.items()
    assert name == found.metric == found.item_ids[0] == found.clusters[0] == plain(half)
    assert found.details["file"] == half


def test_what_is_recalibrated_beside_its_weights_is_known_by_it(tokenizer):
    found = []
    for record in (None, {"recalibration": {"method": "temperature"}}, {"recalibration": {"folded": True}}):
        loaded = LoadedModel(tiny_model("llama", 0), tokenizer, "m", record=record)
        subject = Subject("m", loaded, use_cache=False)
        found.append(measure_model(subject, AuditContext(AuditSettings(), subject), ()).about)
    assert len({about["sha256"] for about in found}) == 1
    assert [len(about.get("recalibration", "")) for about in found] == [0, 64, 0]
