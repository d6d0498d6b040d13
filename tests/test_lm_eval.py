"""Tasks of lm-evaluation-harness: its own numbers, item by item, and nothing of it left behind."""

from __future__ import annotations

import copy
import json
import logging
import random
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from zoo import tiny_model

from trueprune._support.errors import AuditError, TextError
from trueprune.audits import lm_eval_tasks
from trueprune.audits.context import AuditContext, AuditSettings
from trueprune.audits.instruments import INSTRUMENTS, check_instruments
from trueprune.audits.lm_eval import check_lm_eval, measure_lm_eval
from trueprune.audits.subject import Subject
from trueprune.cli.main import run
from trueprune.models.load import LoadedModel
from trueprune.texts.tasks import TaskOptions, check_tasks, find_task

THINGS = ("sky", "grass", "snow", "coal", "blood", "milk", "sand", "night", "sea", "rose", "lemon")
WORDS = ("blue", "cold", "tall", "soft", "old")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Rows, and tasks that ask for them in several ways."""
    folder = tmp_path_factory.mktemp("harness")
    # Options of one length: which is the likeliest depends on the model.
    rows = [
        {"q": f"The {thing} is", "options": [WORDS[(i + k) % 5] for k in (0, 1, 2)], "gold": i % 3}
        for i, thing in enumerate(THINGS)
    ]
    (folder / "rows.json").write_text("\n".join(json.dumps(row) for row in rows))
    (folder / "few.json").write_text("\n".join(json.dumps(row) for row in rows[:4]))
    choice = {
        "output_type": "multiple_choice",
        "doc_to_text": "{{q}}",
        "doc_to_target": "gold",
        "doc_to_choice": "{{options}}",
        "metric_list": [
            {"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "acc_norm")
        ],
    }
    generate = {
        "output_type": "generate_until",
        "doc_to_text": "{{q}}",
        "doc_to_target": "[invalid]",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 6},
        "num_fewshot": 0,
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        "filter_list": [
            {"name": "first", "filter": [{"function": "take_first"}]},
            {"name": "word", "filter": [{"function": "regex", "regex_pattern": "([A-Z])"}, {"function": "take_first"}]},
        ],
    }
    rolling = {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{q}}",
        "metric_list": [{"metric": "word_perplexity"}, {"metric": "bits_per_byte"}],
    }
    mixed = copy.deepcopy(choice)
    mixed["metric_list"] += [{"metric": "mcc"}, {"metric": "brier_score", "higher_is_better": False}]
    mixed["metric_list"][0]["higher_is_better"] = False
    tasks = {
        "choice": (choice, "rows"),
        "few": (choice, "few"),
        "generate": (generate, "rows"),
        "rolling": (rolling, "rows"),
        "mixed": (mixed, "few"),
    }
    for name, (task, file) in tasks.items():
        (folder / name).mkdir()
        data = {"data_files": {"test": str(folder / f"{file}.json")}, "cache_dir": str(folder / "cache")}
        task = {"task": name, "dataset_path": "json", "dataset_kwargs": data, "test_split": "test", **task}
        (folder / name / f"{name}.yaml").write_text(yaml.safe_dump(task))
    for name, by_size in (("pooled", True), ("even", False)):
        means = [{"metric": "acc", "aggregation": "mean", "weight_by_size": by_size}]
        group = {"group": name, "task": ["choice", "few"], "aggregate_metric_list": means}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(group))
    outer = {"group": "outer", "task": ["pooled", "mixed"], "aggregate_metric_list": [{"metric": "acc"}]}
    (folder / "outer.yaml").write_text(yaml.safe_dump(outer))
    return folder


@pytest.fixture
def index(folder, monkeypatch):
    """The harness's index without the thousands of tasks that it brings."""
    from lm_eval.tasks import TaskManager

    found = TaskManager(include_path=folder, include_defaults=False)
    monkeypatch.setattr(lm_eval_tasks, "_index", lambda _beside: found)
    return found


def options(*names: str, **settings) -> TaskOptions:
    return TaskOptions(tasks=tuple(f"lm-eval:{name}" for name in names), **settings)


def harness(loaded: LoadedModel, index, *names: str, **settings) -> dict:
    """What the harness itself finds."""
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    with lm_eval_tasks.contained():
        model = HFLM(pretrained=loaded.model, tokenizer=copy.deepcopy(loaded.tokenizer), batch_size=2)
        return simple_evaluate(model, tasks=list(names), task_manager=index, bootstrap_iters=0, **settings)


# Numbers


@pytest.mark.parametrize("name", ["choice", "generate", "pooled", "even", "outer"])
def test_the_value_is_the_harnesss_own(tiny, index, name):
    theirs = harness(tiny, index, name)
    if name == "outer":
        with pytest.warns(UserWarning, match="mcc"):
            found = measure_lm_eval(tiny, options(name))
    else:
        found = measure_lm_eval(tiny, options(name))
    assert found
    for measurement in found:
        task, metric = measurement.metric.removeprefix("lm-eval:").split("/")
        key = metric if "," in metric else f"{metric},none"
        assert measurement.value == pytest.approx(theirs["results"][task][key], abs=1e-12), measurement.metric
    # Something was right and something wrong: a constant would agree with anything.
    assert any(0 < m.value < 1 for m in found)
    wanted = {
        "choice": {"choice/acc", "choice/acc_norm"},
        "generate": {"generate/exact_match,first", "generate/exact_match,word"},
        "pooled": {"pooled/acc"},
        "even": {"even/acc"},
        "outer": {"outer/acc"},
    }[name]
    assert {m.metric.removeprefix("lm-eval:") for m in found if m.headline} == wanted


def test_means_of_groups_are_weighted_as_they_say(tiny, index):
    pooled, even, subtasks = [], [], {}
    for name in ("pooled", "even"):
        found = {m.metric: m for m in measure_lm_eval(tiny, options(name))}
        (pooled if name == "pooled" else even).append(found[f"lm-eval:{name}/acc"])
        subtasks = {key: m.values for key, m in found.items() if not m.headline}
    choice, few = subtasks["lm-eval:choice/acc"], subtasks["lm-eval:few/acc"]
    assert len(choice) == 11 and len(few) == 4
    assert choice.mean() != few.mean()
    assert pooled[0].value == pytest.approx(np.concatenate([choice, few]).mean())
    assert even[0].value == pytest.approx((choice.mean() + few.mean()) / 2)
    assert len(set(even[0].item_ids)) == 15


def test_documents_pair_two_models(tiny, tokenizer, index):
    other = LoadedModel(tiny_model("llama", seed=1), tokenizer, "other")
    one, two = (measure_lm_eval(loaded, options("choice", items=7))[0] for loaded in (tiny, other))
    assert list(one.item_ids) == list(two.item_ids)
    assert len(set(one.item_ids)) == 7
    assert one.values.tolist() != two.values.tolist()
    # The first so many of the file, as the harness's own limit.
    assert [name.split("-")[0] for name in one.item_ids] == [str(i) for i in range(7)]


def test_what_is_no_mean_is_left_out_by_name(tiny, index):
    with pytest.warns(UserWarning, match="lm-eval:rolling: left out.*word_perplexity, bits_per_byte"):
        assert measure_lm_eval(tiny, options("rolling")) == []
    with pytest.warns(UserWarning, match="lm-eval:mixed: left out.*mcc, brier_score"):
        found = measure_lm_eval(tiny, options("mixed"))
    assert {m.metric: m.higher_is_better for m in found} == {"lm-eval:mixed/acc": False, "lm-eval:mixed/acc_norm": True}


def test_examples_are_the_tasks_own_unless_asked_for(tiny, index, monkeypatch):
    from lm_eval.models.huggingface import HFLM

    prompts: list[list[str]] = []

    def spied(self, requests, **settings):
        prompts.append([request.args[0] for request in requests])
        return [(0.0, False)] * len(requests)

    monkeypatch.setattr(HFLM, "loglikelihood", spied)
    for shots in (0, 2, 2):
        found = measure_lm_eval(tiny, options("choice", shots=shots))
        assert found[0].details["shots"] == shots
    none, one, again = prompts
    assert none[0] == "The sky is" and one[0].count("The ") == 3
    # Drawn by the harness's seed, so that all models get the same.
    assert one == again
    with pytest.warns(UserWarning, match="--shots 2 has no part in lm-eval:generate"):
        measure_lm_eval(tiny, options("generate", shots=2, items=2))


def test_a_task_in_a_group_is_measured_once(tiny, index):
    metrics = [m.metric for m in measure_lm_eval(tiny, options("choice", "even"))]
    assert sorted(metrics) == sorted({*metrics}) and "lm-eval:even/acc" in metrics


# Paths


def test_a_file_a_group_file_and_a_folder(tiny, folder, index):
    whole = folder / "choice"
    for path in (whole / "choice.yaml", f"{whole}/"):
        assert {m.metric for m in measure_lm_eval(tiny, options(str(path), items=3))} == {
            "lm-eval:choice/acc",
            "lm-eval:choice/acc_norm",
        }
    assert measure_lm_eval(tiny, options(str(folder / "even.yaml")))[0].metric == "lm-eval:even/acc"


# What is left behind


def test_the_model_and_the_process_are_as_they_were(tokenizer, index, capfd, tmp_path, monkeypatch):
    from lm_eval import evaluator

    # Not a checkout, of which git would complain.
    monkeypatch.chdir(tmp_path)
    asking = evaluator.get_git_commit_hash, evaluator.add_env_info
    bare = copy.deepcopy(tokenizer)
    bare.pad_token = None
    model = tiny_model("gpt2")
    # Folded apart after loading, though the configuration says tied.
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach() * 1.5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    np.random.seed(5)
    torch.manual_seed(5)
    states = np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    vocabulary = len(bare)
    measure_lm_eval(LoadedModel(model, bare, "tiny"), options("generate", "choice", items=3))
    assert (np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == states
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.lm_head.weight is not model.transformer.wte.weight
    assert "tie_weights" not in vars(model) and not model.training
    assert bare.pad_token is None and len(bare) == vocabulary
    assert logging.root.manager.disable == 0
    assert (evaluator.get_git_commit_hash, evaluator.add_env_info) == asking
    assert capfd.readouterr() == ("", "")


def test_pythons_own_draws_go_on_where_they_were():
    # Beside the test above: there, the hook that checks types draws, too.
    random.seed(5)
    wanted = random.Random(5).random()
    with lm_eval_tasks.contained():
        drawn = random.random()
    with lm_eval_tasks.contained():
        assert random.random() == drawn
    assert random.random() == wanted


# Refusals


def test_an_unknown_task_is_told_the_nearest(index):
    with pytest.raises(AuditError, match=r"no task 'choise'.* Did you mean lm-eval:choice"):
        check_lm_eval(["facts", "lm-eval:choise"])


def test_rows_that_cannot_be_had(folder):
    task = yaml.safe_load((folder / "choice" / "choice.yaml").read_text())
    task |= {"dataset_path": "nobody/nothing-at-all", "dataset_kwargs": {}}
    path = folder / "far" / "far.yaml"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump(task))
    with pytest.raises(AuditError, match=r"rows of lm-eval:.*nobody/nothing-at-all") as caught:
        check_lm_eval([f"lm-eval:{path}"])
    assert "\n" not in str(caught.value)


def test_a_damaged_or_missing_file(tmp_path):
    with pytest.raises(AuditError, match="does not exist"):
        check_lm_eval([f"lm-eval:{tmp_path}/none.yaml"])
    (tmp_path / "bad.yaml").write_text("- no task")
    with pytest.raises(AuditError, match="cannot be read"):
        check_lm_eval([f"lm-eval:{tmp_path}/bad.yaml"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(AuditError, match="no YAML file in"):
        check_lm_eval([f"lm-eval:{tmp_path}/empty"])


def test_what_the_harness_refuses_is_said_in_one_line(tiny, folder, index):
    with pytest.raises(AuditError, match="lm-eval refuses lm-eval:choice"):
        measure_lm_eval(tiny, options("choice", shots=40))


def test_a_document_that_the_template_does_not_fit(tiny, folder, index, tmp_path):
    """The harness finds out while it asks: it loads a task by its first document."""
    rows = (folder / "few.json").read_text().splitlines()
    (tmp_path / "rows.json").write_text("\n".join([*rows[:2], json.dumps(json.loads(rows[2]) | {"options": None})]))
    task = yaml.safe_load((folder / "choice" / "choice.yaml").read_text())
    task["dataset_kwargs"] = {"data_files": {"test": str(tmp_path / "rows.json")}, "cache_dir": str(tmp_path)}
    task["doc_to_text"] = "{{q}} {{options[0].upper()}}"
    path = tmp_path / "broken.yaml"
    path.write_text(yaml.safe_dump(task))
    with pytest.raises(AuditError, match=r"lm-eval refuses lm-eval:.*broken.yaml \(UndefinedError: .*\)"):
        measure_lm_eval(tiny, options(str(path)))
    assert "tie_weights" not in vars(tiny.model)


@pytest.mark.parametrize("earlier", [False, True])
def test_a_model_that_was_trained_on_a_tasks_questions(tiny, folder, index, tmp_path, earlier):
    path = tmp_path / "quiz_mc1.yaml"
    path.write_text((folder / "choice" / "choice.yaml").read_text())
    step = {"healing": {"fitted_on": {"quiz": ["0"], "general": ["1"]}}}
    record = {"history": [step]} if earlier else step
    healed = Subject("healed", LoadedModel(tiny.model, tiny.tokenizer, "healed", record=record))
    for file, said in ((path, True), (folder / "choice" / "choice.yaml", False)):
        settings = AuditSettings(answering=options(str(file), items=2))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert INSTRUMENTS["accuracy"](healed, AuditContext(settings, healed))
        found = [str(w.message) for w in caught if "was fitted on" in str(w.message)]
        assert len(found) == said
        assert all("healed was fitted on questions of quiz, and lm-eval:" in text for text in found)


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval.models", None)
    # Names are accepted without it: nothing is imported while a command line is read.
    TaskOptions(tasks=("facts", "lm-eval:hellaswag"))
    with pytest.raises(AuditError, match=r"pip install 'trueprune\[lm-eval\]'"):
        check_lm_eval(["lm-eval:hellaswag"])


def test_a_model_without_tokenizer(tiny):
    with pytest.raises(AuditError, match="no tokenizer"):
        measure_lm_eval(LoadedModel(tiny.model, None, "bare"), options("choice"))


def test_names_are_checked_without_looking_them_up():
    check_tasks(["facts", "lm-eval:anything", "lm-eval:other"])
    for names, problem in ((["lm-eval:a", "lm-eval:a"], "given twice"), (["lm-eval:"], "is no task")):
        with pytest.raises(TextError, match=problem):
            check_tasks(names)
    with pytest.raises(TextError, match="Only the instrument accuracy"):
        find_task("lm-eval:hellaswag")


@pytest.mark.parametrize("instrument", ["calibration", "faithfulness"])
def test_other_instruments_need_tasks_of_ours(instrument, tiny_folder, folder, capsys):
    name = f"lm-eval:{folder}/choice/choice.yaml"
    with pytest.raises(AuditError, match=f"{instrument} has no task"):
        check_instruments([instrument], AuditSettings(answering=TaskOptions(tasks=(name,))))
    check_instruments([instrument], AuditSettings(answering=TaskOptions(tasks=(name, "facts"))))
    out = str(folder / "none")
    assert run(["audit", str(tiny_folder), "-o", out, "--instruments", instrument, "--tasks", name]) == 2
    assert f"{instrument} has no task" in " ".join(capsys.readouterr().err.split())


# The audit


def test_an_audit_of_both_kinds_of_task(tiny_folder, folder, tmp_path):
    out = tmp_path / "audit"
    name = f"lm-eval:{folder}/choice/choice.yaml"
    arguments = [
        "audit",
        str(tiny_folder),
        str(tiny_folder),
        "-o",
        str(out),
        "--instruments",
        "accuracy",
        "calibration",
    ]
    assert run([*arguments, "--tasks", "facts", name, "--items", "9", "--resamples", "50"]) == 0
    rows = {(r["model"], r["metric"]): r for r in json.loads((out / "audit.json").read_text())["measurements"]}
    for metric in ("accuracy/facts", "lm-eval:choice/acc"):
        changed = rows["tiny-llama (2)", metric]
        assert (changed["n"], changed["change"]["value"], changed["change"]["interval"]) == (9, 0, [0, 0])
    assert not any(metric.startswith("ece") and "lm-eval" in metric for _, metric in rows)
