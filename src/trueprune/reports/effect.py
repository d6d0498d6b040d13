"""The model card's section on what pruning changed, and the metadata that goes with it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult

from trueprune._support import markdown
from trueprune._support.errors import AuditError
from trueprune._support.files import whole_file
from trueprune.audits.instruments import INSTRUMENTS
from trueprune.models.card import model_card
from trueprune.models.record import read_record
from trueprune.reports.audit import AuditReport, Row
from trueprune.reports.gates.contract import Verdict
from trueprune.reports.glossary import metric_words, property_of, unit_of
from trueprune.reports.model_index import eval_results, hub_id, with_results
from trueprune.reports.plain import plain
from trueprune.reports.readme import README, Readme, parse_readme, read_readme, with_metadata, with_section, written
from trueprune.reports.summary import reading, summary

HEADING = "## Effect of pruning"


def effect_section(report: AuditReport, model: str) -> str:
    """What an audit found about one pruned model, as a section of its card.

    **Arguments:**

    - `report`: the audit.
    - `model`: its name in the report.

    **Returns:** Markdown: a sentence, the headline metrics of the dense and of this model with the paired change, what
    a gate says and by which bounds, what was not measured, and the command. Whatever comes from a file or a folder is
    escaped.

    **Raises:** `AuditError` if there is no such pruned model in the report.
    """
    dense = _check(report, model)
    rows = {(row.model, row.instrument, row.metric): row for row in report.rows}
    shown = [row for row in report.rows if row.model == model and row.headline]
    lines = [HEADING, "", markdown.text(summary(report)["models"][model]["sentence"]), ""]
    lines += ["| property | metric | dense | this model | change (95 % interval) | reading | items |"]
    lines += ["|---|---|---:|---:|---:|---|---:|"]
    lines += [_line(row, rows.get((dense, row.instrument, row.metric))) for row in shown]
    lines += [
        "",
        f"Dense: {markdown.text(dense)}. Both models were asked the same items, and changes are paired item by "
        "item. Arrows show which way is good. *Better* and *worse* stand after Holm's correction for all headline "
        "metrics of the audit; *maybe* leaves it open; *no change found* is no proof that there is none.",
        "",
    ]
    lines += _gate(report.verdict, model)
    measured = {row.instrument for row in report.rows if row.model == model}
    if missing := [name for name in INSTRUMENTS if name not in measured]:
        lines += [f"Not measured: {', '.join(_lower(property_of(name).title) for name in missing)}.", ""]
    if commands := _commands(report.settings, dense, model):
        lines += ["Measured by:", "", *markdown.code_block(commands), ""]
    return "\n".join(lines)


def effect_metadata(report: AuditReport, model: str) -> dict[str, Any]:
    """What a card's front matter gains: `results` for its `model-index`, and `base_model`.

    **Arguments:**

    - `report`: the audit.
    - `model`: its name in the report.

    **Returns:** `results`, a list of `huggingface_hub.EvalResult`, and `base_model`, the hub's id of the dense model,
    or `None` where it came from elsewhere.

    **Raises:** `AuditError` if there is no such pruned model in the report.
    """
    _check(report, model)
    results: list[EvalResult] = eval_results(report, model)
    return {"results": results, "base_model": hub_id(report.models[0].about.get("source"))}


def local_folders(report: AuditReport) -> dict[str, Path]:
    """The folders of the pruned models of a report that are still there, by name; with a note on each other.

    **Arguments:**

    - `report`: the audit.
    """
    taken = {_place(report.models[0].about.get("source"))} - {None}
    found: dict[str, Path] = {}
    for model in report.models[1:]:
        place = _place(model.about.get("source"))
        if place is None:
            warnings.warn(f"{model.name} is no folder here, so that it gets no card", stacklevel=2)
        elif place not in taken:
            found[model.name] = place
            taken.add(place)
    return found


def _place(source: Any) -> Path | None:
    folder = Path(str(source)) if source else None
    return folder.resolve() if folder is not None and folder.is_dir() and (folder / "config.json").is_file() else None


def write_effect(report: AuditReport, folders: Mapping[str, str | Path]) -> list[Path]:
    """Write what an audit found into the README.md of checkpoints.

    The section stands between marks and is replaced by the next audit's, as are its results in the `model-index`. All
    else of the file stays as it is. Each file is whole or as it was; none is touched if one of them cannot be read.

    **Arguments:**

    - `report`: the audit.
    - `folders`: of pruned models, by their names in the report.

    **Returns:** the files written.

    **Raises:** `AuditError` for a README.md whose front matter is no YAML mapping, a folder that is not there, or a
    model that is not in the report.
    """
    cards = {Path(folder) / README: _card(report, name, Path(folder)) for name, folder in folders.items()}
    for file, content in cards.items():
        with whole_file(file) as work:
            work.write_bytes(content)
    return list(cards)


def check_cards(folders: Mapping[str, str | Path]) -> None:
    """Refuse folders whose card could not be written; called before long work starts.

    **Arguments:**

    - `folders`: of models, by name.

    **Raises:** as `write_effect`.
    """
    for name, folder in folders.items():
        _changed(_read(Path(folder), name), Path(folder), HEADING, {"results": [], "base_model": None})


def _check(report: AuditReport, model: str) -> str:
    pruned = [one.name for one in report.models[1:]]
    if model not in pruned:
        raise AuditError(
            f"the audit has no pruned model {model!r}", f"It has {', '.join(pruned)}" if pruned else "Audit one"
        )
    return report.models[0].name


def _card(report: AuditReport, name: str, folder: Path) -> bytes:
    section, metadata = effect_section(report, name), effect_metadata(report, name)
    return _changed(_read(folder, name), folder, section, metadata)


def _read(folder: Path, name: str) -> Readme:
    if not folder.is_dir():
        raise AuditError(f"{folder} is no folder, so that {name} gets no card", "Leave out --card")
    if (folder / README).is_file():
        return read_readme(folder / README)
    record = read_record(folder)
    if record is None:
        return Readme({}, None, f"\n# {markdown.text(folder.resolve().name)}\n")
    return parse_readme(model_card(record, str(record.get("source"))), folder / README)


def _changed(readme: Readme, folder: Path, section: str, metadata: Mapping[str, Any]) -> bytes:
    file = folder / README
    index = with_results(
        readme.metadata.get("model-index"), metadata["results"], plain(folder.resolve().name) or "model", file
    )
    changes: dict[str, Any] = {"model-index": index}
    if metadata["base_model"] and not readme.metadata.get("base_model"):
        changes["base_model"] = metadata["base_model"]
    try:
        body = with_section(readme.body, section)
    except AuditError as error:
        raise AuditError(f"{file}: {error.problem}", error.remedy) from error
    return written(readme, with_metadata(readme, changes), body)


def _line(row: Row, before: Row | None) -> str:
    unit = unit_of(row.instrument, row.metric)
    arrow = "↑" if row.higher_is_better else "↓"
    change = "" if row.change is None else _signed(row.change.value, unit)
    if row.change is not None and row.estimate.n > 1:
        change += " ({} to {})".format(*(_signed(bound, unit) for bound in row.change.interval))
    cells = [
        markdown.text(property_of(row.instrument).title),
        f"{markdown.text(metric_words(row.instrument, row.metric))} {arrow}",
        "" if before is None else _number(before.estimate.value, unit),
        _number(row.estimate.value, unit),
        change,
        reading(row) or "",
        f"{row.estimate.n:,}",
    ]
    return f"| {' | '.join(cells)} |"


def _number(value: float, unit: str) -> str:
    if not math.isfinite(value):
        return "undefined"
    if unit in ("count", "bytes", "speed") and abs(value) >= 100:
        return f"{value:,.0f}"
    if unit in ("share", "factor"):
        return f"{value:.3f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


def _signed(value: float, unit: str) -> str:
    return (
        _number(value, unit) if not math.isfinite(value) else f"{'-' if value < 0 else '+'}{_number(abs(value), unit)}"
    )


def _gate(verdict: Verdict | None, model: str) -> list[str]:
    if verdict is None or model not in verdict.models:
        return []
    # Its words are about verdicts that were given: without a gate nothing of it is read.
    from trueprune.reports.gates.words import explained, sentence

    outcomes = verdict.of(model)
    said = markdown.text(sentence(Verdict(verdict.gate, outcomes)))
    lines = [f"**{'Passed' if verdict.passed(model) else 'Failed'}:** {said}", ""]
    for outcome in outcomes:
        reason = f" {markdown.text(outcome.check.reason)}" if outcome.check.reason else ""
        lines.append(f"- {markdown.text(outcome.check.instrument)}: {markdown.text(explained(outcome))}{reason}")
    return [*lines, ""]


def _lower(title: str) -> str:
    return title[0].lower() + title[1:]


def _commands(settings: Mapping[str, Any], dense: str, model: str) -> list[str]:
    """The audits that measured the two models, and what joined them."""
    joined = [one for one in settings.get("joined") or () if {dense, model} & set(one["models"])]
    found = [one.get("command") for one in joined] or [settings.get("command")]
    return list(dict.fromkeys(str(one) for one in (*found, settings.get("reported_by")) if one))
