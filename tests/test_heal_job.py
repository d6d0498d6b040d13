"""The repair by training from the command line: blocks chosen, record, card, resumption, refusals."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from trueprune import RepairError, load, prune, read_anatomy, repair
from trueprune.cli.main import run
from trueprune.jobs.heal_layers import choose_layers, wanted_layers
from trueprune.plans.eavss import prone_layers
from trueprune.repairs.healing import HealingOptions
from trueprune.repairs.healing.train import Trainer
from trueprune.texts.qa import QaOptions, set_questions
from trueprune.texts.qa.pools import find_set

JOB = importlib.import_module("trueprune.jobs.heal")
LAYERS = importlib.import_module("trueprune.jobs.heal_layers")
SMALL = ["--steps", "4", "--batch", "2", "--window", "16", "--pairs", "2", "--evaluate-every", "2"]
SMALL += ["--precision", "float32", "--learning-rate", "0.01"]
OPTIONS = HealingOptions(
    steps=4, batch=2, window=16, pairs=2, evaluate_every=2, precision="float32", learning_rate=0.01, layers="1"
)
pytestmark = pytest.mark.filterwarnings("ignore:healing.*no state is better:UserWarning")


@pytest.fixture(autouse=True)
def _short_measurements(monkeypatch):
    monkeypatch.setattr(JOB, "PERPLEXITY_TOKENS", 512)
    monkeypatch.setattr(JOB, "RESAMPLES", 20)


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    """Forty questions, of which ten are for fitting."""
    file = tmp_path_factory.mktemp("qa") / "towns.jsonl"
    rows = [
        {"id": str(n), "question": f"Where is town {n}?", "right": [f"east of {n}"], "wrong": [f"at sea {n + 1}"]}
        for n in range(40)
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    return file


@pytest.fixture(scope="module")
def half(tiny_folder, tmp_path_factory):
    """The tiny model with half of its weights gone. Read only."""
    folder = tmp_path_factory.mktemp("half") / "half"
    prune(tiny_folder, folder, method="magnitude", sparsity=0.5)
    return folder


def record_of(folder) -> dict[str, Any]:
    return json.loads((Path(folder) / "trueprune.json").read_text())


def weights(folder):
    return load_file(Path(folder) / "model.safetensors")


def healing(half, out, questions, *flags):
    return run(["repair", str(half), "-o", str(out), "--qa", str(questions), *SMALL, *flags])


def test_contrastive_from_the_command_line(half, questions, tmp_path, capsys):
    out = tmp_path / "healed"
    assert healing(half, out, questions, "--with", "contrastive", "--layers", "0,2") == 0
    printed = capsys.readouterr().out
    for words in (
        "contrastive, lora",
        "0, 2 of 3 (listed)",
        "10 of towns",
        "perplexity",
        "before",
        "after",
        "held-out",
    ):
        assert words in printed
    assert [path.name for path in tmp_path.iterdir()] == ["healed"]
    before, after = weights(half), weights(out)
    assert before.keys() == after.keys()
    for key, tensor in before.items():
        inside = key.startswith(("model.layers.0.", "model.layers.2.")) and "norm" not in key
        assert torch.equal(tensor, after[key]) != inside, key
        if inside:
            assert not after[key][tensor == 0].any()
    record = record_of(out)
    found = record["healing"]
    assert record["method"] == "repair-contrastive"
    assert record["command"].startswith("trueprune repair ")
    assert (found["layers"], found["chosen_by"], found["blocks"]) == ([0, 2], "listed", 3)
    assert found["options"]["weight"] == 0.1 and found["options"]["precision"] == "float32"
    assert [row["step"] for row in found["curve"]] == [0, 2, 4]
    assert set(found["curve"][0]) == {"step", "loss", "held_out", "text", "answers", "contrastive"}
    fit = set_questions(find_set(str(questions)), 0, "fit")
    assert found["fitted_on"] == {"towns": [question.sha256 for question in fit]}
    assert record["plan"] == record_of(half)["plan"]
    assert record["measured_sparsity"] == pytest.approx(record_of(half)["measured_sparsity"])
    assert [step["method"] for step in record["history"]] == ["magnitude"]
    assert {row["metric"] for row in found["measured"]} == {"perplexity"}
    card = (out / "README.md").read_text()
    assert (
        "Healed with trueprune: `contrastive`, lora, blocks 0, 2 of 3 (chosen by `listed`), 4 steps of 2 x 16" in card
    )
    assert "and 10 questions of towns" in card and "pruned" in card
    # A later step keeps what it was trained on.
    assert run(["drop", str(out), "-o", str(tmp_path / "less"), "--by", "first", "--count", "1"]) == 0
    assert record_of(tmp_path / "less")["history"][-1]["healing"]["fitted_on"] == found["fitted_on"]
    assert "Healed with trueprune" in (tmp_path / "less" / "README.md").read_text()


def test_an_audit_refuses_what_was_trained_on(half, questions, tmp_path):
    from trueprune import AuditError
    from trueprune.audits.recalibrated import refuse_fitted

    healing(half, tmp_path / "out", questions, "--with", "lora", "--layers", "1")
    found = find_set(str(questions))
    record = record_of(tmp_path / "out")
    with pytest.raises(AuditError, match="10 of the 10 items of towns were used to train mine"):
        refuse_fitted("mine", record, "towns", set_questions(found, 0, "fit"))
    refuse_fitted("mine", record, "towns", set_questions(found, 0, "audit"))


def test_the_ways_train_on_the_same_and_differ_in_the_loss(half, questions, tmp_path):
    records = {}
    for way in ("contrastive", "lora"):
        assert healing(half, tmp_path / way, questions, "--with", way, "--layers", "1") == 0
        records[way] = record_of(tmp_path / way)
    assert records["lora"]["calibration"] == records["contrastive"]["calibration"]
    first = {way: record["healing"]["curve"][0] for way, record in records.items()}
    assert first["lora"]["text"] == first["contrastive"]["text"]
    assert first["lora"]["answers"] == first["contrastive"]["answers"]
    assert "contrastive" not in first["lora"]
    assert any(
        not torch.equal(tensor, weights(tmp_path / "lora")[key])
        for key, tensor in weights(tmp_path / "contrastive").items()
    )


def test_distillation_learns_from_the_dense_model(half, tiny_folder, tmp_path):
    flags = "--pairs 0 --steps 8 --batch 4 --window 16 --precision float32 --adapt full --learning-rate 0.002"
    arguments = ["repair", str(half), "-o", str(tmp_path / "out"), "--with", "distill", "--teacher", str(tiny_folder)]
    assert run([*arguments, *flags.split(), "--evaluate-every", "4"]) == 0
    found = record_of(tmp_path / "out")["healing"]
    assert found["teacher"] == str(tiny_folder)
    assert found["chosen_by"] == "all" and found["layers"] == [0, 1, 2]
    assert found["fitted_on"] == {} and found["pairs"] == 0
    assert found["curve"][-1]["held_out"] < 0.95 * found["curve"][0]["held_out"]
    assert f"`distill` from `{tiny_folder}`" in (tmp_path / "out" / "README.md").read_text()
    measured = {row["model"]: row for row in found["measured"]}
    assert measured["after"]["value"] < measured["before"]["value"]


# Which blocks


def test_prone_blocks_are_those_of_eavss_and_random_ones_are_others(half, questions):
    loaded = load(half)
    anatomy = read_anatomy(loaded.model)
    asking = QaOptions(qa=(str(questions),))
    choice = HealingOptions(pairs=2, layer_share=0.34)
    prone = choose_layers(loaded, anatomy, "contrastive", choice, asking)
    assert prone.by == "prone" and len(prone.layers) == 1
    result = LAYERS.Comparison(loaded, LAYERS.HallucinationOptions(), asking, LAYERS.EavssOptions()).score(anatomy)
    assert list(prone.layers) == prone_layers(result, 0.34)
    assert prone.found["eavss"] == result.score_L.tolist()
    assert len(prone.answers) == 20 and len(prone.fitted_on["towns"]) == 10
    drawn = set()
    for seed in range(6):
        options = HealingOptions(pairs=2, layer_share=0.34, layers="random", healing_seed=seed)
        random = choose_layers(loaded, anatomy, "lora", options, asking)
        assert random.by == "random" and len(random.layers) == 1
        assert not set(random.layers) & set(prone.layers)
        assert random.answers == prone.answers
        drawn |= set(random.layers)
    assert len(drawn) == 2
    # Where there are too few others, all may be drawn.
    options = HealingOptions(pairs=2, layer_share=1.0, layers="random")
    assert choose_layers(loaded, anatomy, "lora", options, asking).layers == (0, 1, 2)
    known = {"layers": [2], "found": {"eavss": [1.0]}}
    again = choose_layers(loaded, anatomy, "contrastive", choice, asking, known=known)
    assert (again.layers, again.found) == ((2,), {"eavss": [1.0]})


def test_lists_of_blocks():
    assert wanted_layers("lora", HealingOptions(layers="2,0, 2"), 3) == ("listed", (0, 2))
    assert wanted_layers("lora", HealingOptions(), 2) == ("all", (0, 1))
    assert wanted_layers("contrastive", HealingOptions(), 2) == ("prone", ())
    for wrong in ("3", "-1", "x", ","):
        with pytest.raises(RepairError, match="names no blocks of this model, which has 3"):
            wanted_layers("lora", HealingOptions(layers=wrong), 3)


# Cut off


def test_the_same_command_goes_on_and_others_are_refused(half, questions, tmp_path, monkeypatch, capsys):
    flags = ["--with", "contrastive", "--layer-share", "0.34"]
    assert healing(half, tmp_path / "whole", questions, *flags) == 0
    taken = Trainer._step

    def step(self, number):
        if number == 3:
            raise KeyboardInterrupt
        return taken(self, number)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_step", step)
        assert healing(half, tmp_path / "out", questions, *flags) == 130
    assert "out.healing keeps the last evaluation: run again to go on" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.healing", "whole"]
    assert healing(half, tmp_path / "out", questions, *flags, "--rank", "4") == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert "out.healing holds a healing that was cut off, with rank 8, not 4" in message
    assert "remove that folder to start again" in message
    # Nothing is chosen again.
    monkeypatch.setattr(LAYERS, "Comparison", None)
    assert healing(half, tmp_path / "out", questions, *flags) == 0
    assert not (tmp_path / "out.healing").exists()
    for key, tensor in weights(tmp_path / "whole").items():
        assert torch.equal(tensor, weights(tmp_path / "out")[key])
    ours, theirs = (record_of(tmp_path / name)["healing"] for name in ("out", "whole"))
    same = ("curve", "layers", "eavss", "prone", "fitted_on", "best_step", "stopped")
    assert {key: ours[key] for key in same} == {key: theirs[key] for key in same}


def cut_at(number):
    """A step of training that is interrupted when its turn comes."""
    taken = Trainer._step

    def step(self, current):
        if current == number:
            raise KeyboardInterrupt
        return taken(self, current)

    return step


def test_nothing_is_promised_before_the_first_evaluation(half, questions, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Trainer, "_step", cut_at(1))
    assert healing(half, tmp_path / "out", questions, "--with", "lora", "--layers", "1") == 130
    assert "run again to go on" not in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_other_questions_in_the_same_file_are_refused(half, questions, tmp_path, monkeypatch, capsys):
    """What was trained on before the cut would be missing from the record, and an audit could ask it."""
    file, lines = tmp_path / "towns.jsonl", questions.read_text().splitlines()
    file.write_text("\n".join(lines))
    flags = ["--with", "lora", "--layers", "1"]
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_step", cut_at(3))
        assert healing(half, tmp_path / "out", file, *flags) == 130
    file.write_text("\n".join(line.replace("east", "west") for line in lines))
    assert healing(half, tmp_path / "out", file, *flags) == 2
    assert "holds a healing that was cut off, with data_sha256" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()
    file.write_text("\n".join(lines))
    assert healing(half, tmp_path / "out", file, *flags) == 0


def test_a_model_beside_the_output_is_not_taken_for_a_state(half, tmp_path, capsys):
    named = tmp_path / "out.healing"
    shutil.copytree(half, named)
    arguments = ["repair", str(named), "-o", str(tmp_path / "out"), "--with", "lora", "--pairs", "0"]
    assert run([*arguments, *SMALL[:6], "--precision", "float32"]) == 2
    assert "out.healing, where a healing keeps its state, is or holds something else" in capsys.readouterr().err
    assert {path.name for path in named.iterdir()} == {path.name for path in half.iterdir()}


def test_a_failed_save_keeps_the_state(half, questions, tmp_path, monkeypatch):
    def broken(*_args, **_options):
        raise RuntimeError("no more")

    with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="no more"):
        patched.setattr(JOB, "save", broken)
        repair(half, tmp_path / "out", using="lora", healing=OPTIONS, asking=QaOptions(qa=(str(questions),)))
    assert [path.name for path in tmp_path.iterdir()] == ["out.healing"]
    monkeypatch.setattr(Trainer, "_step", None)
    repair(half, tmp_path / "out", using="lora", healing=OPTIONS, asking=QaOptions(qa=(str(questions),)))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


# What is refused or said


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--with", "magic"], ["no repair 'magic'", "temperature", "contrastive, lora, distill"]),
        (["--with", "lora", "--tasks", "sentiment"], ["--with lora is fitted on no task"]),
        (["--with", "temperature", "--steps", "3"], ["--with temperature trains nothing", "options of healing"]),
        (["--with", "temperature", "--teacher", "demo"], ["--with temperature trains nothing", "--teacher"]),
        (["--with", "platt", "--qa", "general"], ["--with platt trains nothing", "--qa"]),
        (["--with", "platt", "--seed", "3"], ["--with platt trains nothing", "--calibration"]),
        (["--with", "distill"], ["--teacher"]),
        (["--with", "distill", "--teacher", "no/such/folder"], ["no folder or file no/such/folder"]),
        (["--with", "lora", "--nsamples", "4"], ["--nsamples and --seqlen have no meaning", "--steps"]),
        (["--with", "lora", "--pairs", "0", "--qa-items", "3"], ["--pairs 0 trains on no answers"]),
        (["--with", "lora", "--calibration", "embedded", "enriched_truth_qa=2"], ["by which audits judge", "--qa"]),
        (["--with", "lora", "--layers", "9"], ["--layers 9 names no blocks of this model, which has 3"]),
        (["--with", "lora", "--tau", "0.5"], ["--tau has no meaning for --with lora"]),
        (["--with", "lora", "--adapt", "half"], ["unknown --adapt 'half'", "lora, full"]),
    ],
)
def test_wrong_healings_are_one_line_and_leave_nothing(half, tmp_path, capsys, flags, words):
    if "--qa" in flags and "platt" in flags:
        flags = [*flags[:-1], "misconceptions"]
    assert run(["repair", str(half), "-o", str(tmp_path / "out"), *flags]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("trueprune: error: ")
    for word in words:
        assert word in lines[-1]
    assert list(tmp_path.iterdir()) == []


def test_a_recalibration_before_is_said(half, tmp_path):
    loaded = load(half)
    asked: dict[str, Any] = {"using": "lora", "healing": HealingOptions(**{**vars(OPTIONS), "pairs": 0})}
    folded = {"recalibration": {"folded": True, "temperature": 1.2, "fitted_on": {}}}
    curve = {"recalibration": {"folded": False, "method": "platt", "tasks": {}, "fitted_on": {}}}
    from dataclasses import replace

    for record, words in ((folded, "temperature in the weights was fitted before healing"), (curve, "by platt was")):
        with pytest.warns(UserWarning, match=words):
            result = repair(replace(loaded, record=record), **asked)
        assert "recalibration" not in result.record
        assert result.record["history"][0]["recalibration"] == record["recalibration"]


def test_in_python_nothing_need_be_written(half, questions, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = repair(half, using="lora", healing=OPTIONS, asking=QaOptions(qa=(str(questions),)))
    assert result.output is None and list(tmp_path.iterdir()) == []
    assert result.report.value("after", "perplexity").value > 0
    assert result.record["healing"]["layers"] == [1]
