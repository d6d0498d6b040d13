"""The job `study attention`: what losing attention layers does to accuracy, confidence and explanations."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from trueprune._support.environment import versions
from trueprune._support.errors import OutputError, PlanError
from trueprune._support.folders import whole_folder
from trueprune._support.hashing import hash_json, hash_model
from trueprune.audits.faithfulness.explain import ExplanationOptions, explain, read_explanations, write_explanations
from trueprune.audits.predict import predict
from trueprune.audits.predictions import read_predictions, write_predictions
from trueprune.audits.recalibrated import refuse_fitted
from trueprune.edits.drop import apply_drop, present
from trueprune.jobs.common import LoadOptions, as_loaded
from trueprune.models.anatomy import read_anatomy
from trueprune.models.load import LoadedModel, check_source
from trueprune.observe.dense import observe_blocks
from trueprune.observe.moments import NearZero
from trueprune.plans.choose import by_rank, candidates, importance_of
from trueprune.plans.drop import Drop
from trueprune.plans.rankings import LayerEvidence, find_ranking
from trueprune.reports.audit import settings_of
from trueprune.reports.study import Cell, StudyReport, write_study
from trueprune.texts.calibration import CalibrationOptions, calibration_tokens
from trueprune.texts.tasks import ChoiceItem, find_task, questions
from trueprune.texts.tasks.questions import TaskOptions

SCHEMA = 1


@dataclass(frozen=True)
class StudyOptions:
    """What a study goes through.

    **Arguments:**

    - `drops`: how many attention layers go, e.g. `0,2,4,6`; 0, the whole model, is always among them.
    - `by`: the ranking that says which go first: `cosine`, `avss`, `random`, `first`, `last`.
    - `resamples`: bootstrap resamples of the intervals.
    """

    drops: str = "0,2,4,6,8,10"
    by: str = "cosine"
    resamples: int = 2000

    def __post_init__(self):
        _ = self.counts
        find_ranking(self.by)
        if self.resamples < 10:
            raise PlanError(f"--resamples {self.resamples} is below 10", "Use 10 or more")

    @property
    def counts(self) -> list[int]:
        """The numbers of dropped layers, ascending, with 0 in front."""
        parts = [part for part in re.split(r"[,\s]+", self.drops.strip()) if part]
        if not parts or not all(re.fullmatch("[0-9]{1,6}", part) for part in parts):
            raise PlanError(f"--drops {self.drops!r} is no list of numbers", "Write e.g. 0,2,4,6")
        return sorted({0, *map(int, parts)})


def study_attention(
    models: Sequence[str | Path],
    output: str | Path,
    *,
    study: StudyOptions = StudyOptions(),
    answering: TaskOptions = TaskOptions(tasks=("sentiment", "commonsense", "facts"), items=50),
    explaining: ExplanationOptions = ExplanationOptions(attributions=("lime", "random"), explained=0),
    calibration: CalibrationOptions = CalibrationOptions(),
    loading: LoadOptions = LoadOptions(),
) -> StudyReport:
    """Drop ever more attention layers and measure accuracy, confidence and explanations.

    One table: models by tasks by numbers of dropped layers, with the paired change against the whole model. Every cell
    is written when it is done; the same command again goes on where it stopped.

    **Arguments:**

    - `models`: checkpoint folders, `demo`, GGUF files or hub ids.
    - `output`: the folder for the table (`study.json`, `study.md`, plots) and the cells. If it holds a study of other
        settings, its cells are kept and not used.
    - `study`: how many layers go, and by what ranking.
    - `answering`: the tasks.
    - `explaining`: how answers are explained.
    - `calibration`: the texts on which layers are ranked.
    - `loading`: how models are loaded.

    **Returns:** a `StudyReport`.

    **Raises:** `TruepruneError`; finished cells stay.
    """
    output = Path(output)
    if output.is_file() or (output.is_dir() and any(output.iterdir()) and not (output / "cells").is_dir()):
        raise OutputError(f"the output {output} is no folder of a study", "Choose another with -o")
    if not models:
        raise PlanError("there is no model to study", "Name one or more with --models")
    names = _names(models)
    for model in models:
        check_source(model)
    cells: list[Cell] = []
    for name, model in zip(names, models, strict=True):
        cells += _Study(name, model, output, study, answering, explaining, calibration, loading).run()
    settings = {
        "study": settings_of(study),
        "tasks": settings_of(answering),
        "faithfulness": settings_of(explaining),
        "calibration": settings_of(calibration),
        "loading": settings_of(loading),
        "versions": versions(),
    }
    report = StudyReport.of(cells, settings, resamples=study.resamples)
    write_study(report, output)
    return report


@dataclass(frozen=True)
class _Study:
    """The cells of one model."""

    name: str
    source: str | Path
    output: Path
    study: StudyOptions
    answering: TaskOptions
    explaining: ExplanationOptions
    calibration: CalibrationOptions
    loading: LoadOptions

    def run(self) -> list[Cell]:
        """All cells, those that are there already read from their files."""
        dense = as_loaded(self.source, self.loading)
        weights = hash_model(dense.model)
        order = self._order(dense, weights)
        items = {
            find_task(task).name: questions(task, self.answering.items, self.answering, tokenizer=dense.tokenizer)
            for task in self.answering.tasks
        }
        for task, asked in items.items():
            refuse_fitted(self.name, dense.record, task, asked)
        cells = []
        for count in self.study.counts:
            model: LoadedModel | None = None
            for task, asked in items.items():
                key = self._key(weights, order[:count], task, asked, dense)
                folder = self.output / "cells" / f"{_safe(self.name)}-{count:02}-{_safe(task)}-{key[:12]}"
                if not (folder / "cell.json").is_file():
                    model = model or _without(dense, order[:count])
                    self._measure(model, task, asked, count, order, folder)
                cells.append(_read(self.name, count, order[:count], task, folder))
        return cells

    def _order(self, dense: LoadedModel, weights: str) -> list[int]:
        """Attention layers in the order in which they go: ranked once, on the whole model."""
        ranking = find_ranking(self.study.by)
        anatomy = read_anatomy(dense.model)
        units = candidates("attention", present(anatomy))
        most = self.study.counts[-1]
        if most > max(0, len(units) - 1):
            raise PlanError(
                f"--drops asks for {most} attention layers less, {self.name} has {len(units)}",
                f"Drop at most {max(0, len(units) - 1)}",
            )
        key = hash_json([SCHEMA, weights, self.study.by, settings_of(self.calibration), versions()])
        file = self.output / "cells" / f"{_safe(self.name)}-order-{key[:12]}" / "order.json"
        if not file.is_file():
            profile = None
            if ranking.observes:
                profile = observe_blocks(anatomy, calibration_tokens(dense, self.calibration), zero=NearZero())[1]
            evidence = LayerEvidence(len(anatomy.blocks), profile, seed=self.calibration.seed)
            importance_K = importance_of(units, ranking, evidence)
            order = [units[i][1] for i in by_rank(importance_K, len(units))]
            with whole_folder(file.parent, overwrite=True) as work:
                (work / "order.json").write_text(json.dumps({"by": self.study.by, "order": order}) + "\n")
        return json.loads(file.read_text())["order"]

    def _key(self, weights: str, gone: list[int], task: str, asked: Sequence[ChoiceItem], dense: LoadedModel) -> str:
        prompts = [asdict(item) for item in asked]
        options = replace(self.answering, tasks=("facts",))
        how = [settings_of(options), settings_of(self.explaining), str(getattr(dense.model, "config", None))]
        return hash_json([SCHEMA, weights, sorted(gone), task, prompts, how, versions()])

    def _measure(
        self, model: LoadedModel, task: str, asked: Sequence[ChoiceItem], count: int, order: list[int], folder: Path
    ) -> None:
        scoring = self.answering.scoring
        labels = {t.name: self.answering.by_labels(t) for t in map(find_task, self.answering.tasks)}[task]
        predictions = predict(model, asked, task=task, scoring=scoring, labels=labels)
        explanations = explain(model, asked, self.explaining, task=task, scoring=scoring)
        with whole_folder(folder, overwrite=True) as work:
            write_predictions([(self.name, predictions)], work / "predictions.parquet")
            write_explanations([(self.name, explanations)], work / "explanations.parquet")
            cell = {"model": self.name, "task": task, "dropped": count, "layers": order[:count]}
            (work / "cell.json").write_text(json.dumps(cell, indent=1) + "\n", encoding="utf-8")


def _without(dense: LoadedModel, gone: list[int]) -> LoadedModel:
    """A copy of the model without the attention of some blocks."""
    if not gone:
        return dense
    model = replace(dense, model=copy.deepcopy(dense.model))
    anatomy = read_anatomy(model.model)
    apply_drop(anatomy, Drop.from_json({"attention": gone}, len(anatomy.blocks)))
    return model


def _read(name: str, count: int, gone: list[int], task: str, folder: Path) -> Cell:
    (predictions,) = read_predictions(folder / "predictions.parquet").values()
    (explanations,) = read_explanations(folder / "explanations.parquet").values()
    return Cell(name, task, count, gone, predictions, explanations)


def _names(models: Sequence[Any]) -> list[str]:
    names = [Path(str(model).rstrip("/")).name or str(model) for model in models]
    if twice := [name for name in names if names.count(name) > 1]:
        raise PlanError(f"two models are called {twice[0]!r}", "Rename a folder")
    return names


def _safe(name: str) -> str:
    """A name that is one part of a path."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip(".") or "_"
