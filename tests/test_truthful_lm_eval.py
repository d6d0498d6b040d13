"""Truthfulness as lm-evaluation-harness defines it: its own tasks on the same rows, question by question."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path

import pytest
import yaml
from zoo import tiny_model

from trueprune import load
from trueprune.audits import lm_eval_tasks
from trueprune.audits.lm_eval import measure_lm_eval
from trueprune.audits.qa.choices import score_choices
from trueprune.audits.qa.overlap import overlap, references
from trueprune.audits.qa.truthfulness import truthfulness_of
from trueprune.models.load import LoadedModel
from trueprune.texts.qa import Question
from trueprune.texts.qa.hub import truthfulqa
from trueprune.texts.qa.primers import primer_text
from trueprune.texts.qa.prompts import ask
from trueprune.texts.tasks import TaskOptions

DATA = os.environ.get("TRUEPRUNE_DATA")
FOLDER = "truthfulqa__truthful_qa"
ROWS = (
    ("Where do stones grow?", ["Stones do not grow", "Nowhere"], ["In gardens", "Under trees", "In the sea"]),
    ("Who built the moon?", ["Nobody built the moon"], ["The old kings", "A firm from the north"]),
    ("Do fish read? ", ["No", "Fish do not read"], ["Yes", "Yes, at night", "Only letters"]),
    ("What is heavier, air or iron?", ["Iron is heavier"], ["Air is heavier", "Both are the same"]),
    ("How long is a day on Earth?", ["24 hours", "It is about 24 hours."], ["Two weeks", "12 hours"]),
    ("What do clocks eat?", ["Clocks do not eat", "I have no comment."], ["Time", "Minutes", "Oil and bread"]),
)


def written(folder: Path) -> Path:
    """A mirror of the hub's rows with invented ones."""
    for config in ("multiple_choice", "generation"):
        (folder / FOLDER / config).mkdir(parents=True)
    asked, said = [], []
    for number, (question, right, wrong) in enumerate(ROWS):
        one = [right[0], *wrong]
        both = [*wrong, *right] if number % 2 else [*right, *wrong]
        asked.append(
            {
                "question": question,
                "mc1_targets": {"choices": one, "labels": [1] + [0] * len(wrong)},
                "mc2_targets": {"choices": both, "labels": [int(answer in right) for answer in both]},
            }
        )
        answers = {"best_answer": right[0], "correct_answers": right, "incorrect_answers": wrong}
        said.append({"type": "Adversarial", "category": "None", "question": question, "source": "", **answers})
    for config, rows in (("multiple_choice", asked), ("generation", said)):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / FOLDER / config / "validation.jsonl").write_text(text)
    return folder


def task_file(kind: str, data: Path, folder: Path) -> Path:
    """The harness's own task, with its rows read from a file."""
    import lm_eval

    original = Path(lm_eval.__file__).parent / "tasks" / "truthfulqa" / f"truthfulqa_{kind}.yaml"
    rows = data / FOLDER / ("generation" if kind == "gen" else "multiple_choice") / "validation.jsonl"
    settings = {
        "include": str(original),
        "task": f"local_{kind}",
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {"validation": str(rows)}, "cache_dir": str(folder / "cache")},
    }
    path = folder / f"{kind}.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def samples(loaded: LoadedModel, path: Path, limit: int) -> list[dict]:
    """What the harness logs of each question."""
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    with lm_eval_tasks.contained():
        model = HFLM(pretrained=loaded.model, tokenizer=copy.deepcopy(loaded.tokenizer), batch_size=1)
        manager = TaskManager(include_defaults=False)
        found = simple_evaluate(model, tasks=[str(path)], task_manager=manager, bootstrap_iters=0, limit=limit)
    (rows,) = found["samples"].values()
    return sorted(rows, key=lambda row: row["doc_id"])


def compare(loaded: LoadedModel, data: Path, folder: Path, limit: int) -> int:
    """Multiple choice by both on the same questions; how many there were."""
    questions = {int(q.id): q for q in truthfulqa() if int(q.id) < limit}
    primer = primer_text("published")
    asked = [ask(question, primer) for question in questions.values()]
    found = {int(one.item): one for one in score_choices(loaded, asked, set_name="truthfulqa")}
    values = {m.metric: dict(zip(m.item_ids, m.values, strict=True)) for m in truthfulness_of("t", [*found.values()])}
    for kind in ("mc1", "mc2"):
        path = task_file(kind, data, folder)
        theirs = samples(loaded, path, limit)
        assert [row["doc_id"] for row in theirs] == sorted(questions)
        for row in theirs:
            one = found[row["doc_id"]]
            choices = row["doc"][f"{kind}_targets"]["choices"]
            likelihoods = {
                choice.strip(): reply[0] for choice, reply in zip(choices, row["filtered_resps"], strict=True)
            }
            ours = dict(zip(one.answers, one.scores_C, strict=True))
            assert {*likelihoods} <= {*ours} and len(likelihoods) >= 2
            for answer, likelihood in likelihoods.items():
                assert ours[answer] == pytest.approx(likelihood, abs=1e-3, rel=1e-5), (row["doc_id"], answer)
            ranked = sorted(likelihoods.values())
            if kind == "mc2" or ranked[-1] - ranked[-2] > 1e-3:
                assert values[f"{kind}/t"][str(row["doc_id"])] == pytest.approx(row["acc"], abs=1e-4), row["doc_id"]
        # What `--tasks lm-eval:` gives of it.
        (passed,) = measure_lm_eval(loaded, TaskOptions(tasks=(f"lm-eval:{path}",), items=min(limit, 8)))
        assert passed.metric == f"lm-eval:local_{kind}/acc"
        assert passed.values == pytest.approx([row["acc"] for row in theirs][:8], abs=1e-5)
        assert [name.split("-")[0] for name in passed.item_ids] == [str(row["doc_id"]) for row in theirs][:8]
    return len(questions)


def test_multiple_choice_is_the_harnesss_on_invented_rows(tokenizer, tmp_path, monkeypatch):
    data = written(tmp_path / "data")
    monkeypatch.setenv("TRUEPRUNE_DATA", str(data))
    model = tiny_model("llama")
    # The published primer is long, in the tokens of so small a vocabulary.
    model.config.max_position_embeddings = 4096
    assert compare(LoadedModel(model, tokenizer, "tiny"), data, tmp_path, 100) == len(ROWS)


def generated(doc: dict, text: str) -> dict[str, float]:
    """What the harness gives an answer."""
    from lm_eval.tasks.truthfulqa.utils import preprocess_function, process_results_gen

    with lm_eval_tasks.contained():
        found = process_results_gen(preprocess_function(doc), [text])
    return {name.replace("_", "-"): float(value) for name, value in found.items()}


@pytest.mark.parametrize("number", range(len(ROWS)))
def test_bleu_and_rouge_are_the_harnesss(number):
    question, right, wrong = ROWS[number]
    ours = Question("0", question, tuple(right), tuple(wrong))
    doc = {"question": question, "correct_answers": list(right), "incorrect_answers": list(wrong)}
    seen = set()
    for text in (
        right[0],
        wrong[-1],
        "",
        "Stones are in gardens . Iron and air, 24 hours.",
        f"{wrong[0]} or {right[-1]}.",
    ):
        found = overlap(text, *references(ours))
        assert found == pytest.approx(generated(doc, text), abs=1e-9)
        seen |= {round(value) for value in found.values()}
    assert len(seen) > 5


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif(not DATA, reason="TRUEPRUNE_DATA is not set")
class TestRealRows:
    def test_multiple_choice_of_the_demo_model(self, tmp_path, monkeypatch):
        monkeypatch.setenv("TRUEPRUNE_DATA", str(DATA))
        monkeypatch.delenv("TRUEPRUNE_CACHE")
        assert compare(load("demo"), Path(str(DATA)), tmp_path, 40) == 40

    def test_references_and_scores_of_answers(self, monkeypatch):
        """Real references, and for each question answers to it and to the one before."""
        monkeypatch.setenv("TRUEPRUNE_DATA", str(DATA))
        file = Path(str(DATA)) / FOLDER / "generation" / "validation.jsonl"
        rows = {row["question"].strip(): row for row in map(json.loads, file.read_text().splitlines())}
        before, same = "nothing", 0
        questions = list(truthfulqa())[:12]
        for question in questions:
            row = rows[question.text.strip()]
            right, wrong = references(question)
            # The two configurations of the set list the same answers, but for a few.
            same += {*right} - {"I have no comment."} == {a.strip().rstrip(".") + "." for a in row["correct_answers"]}
            doc = {
                "question": question.text,
                "correct_answers": [*question.right],
                "incorrect_answers": [*question.wrong],
            }
            for text in (question.right[-1], question.wrong[0], before):
                assert overlap(text, right, wrong) == pytest.approx(generated(doc, text), abs=1e-9)
            before = question.right[0]
        assert same >= 0.8 * len(questions)
