"""A short model card for a pruned checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trueprune._support.markdown import code_block, code_span, text


def model_card(record: Mapping[str, Any], source: str) -> str:
    """Markdown that says what was done to the model and how to do it again.

    **Arguments:**

    - `record`: the content of `trueprune.json`.
    - `source`: the model that was pruned.
    """
    plan = record.get("plan") or {}
    done = "pruned" if plan else "healed" if record.get("healing") else "recalibrated"
    lines = [
        "---",
        "tags:",
        "- trueprune",
        *(["- pruning"] if plan else []),
        "---",
        "",
        f"# {text(source)}, {done}",
        "",
    ]
    for step in dict.fromkeys(plan.get("order") or (("prune",) if plan else ())):
        lines += _dropped(plan["drop"]) if step == "drop" else _pruned(record, plan)
    for step in (*record.get("history", []), record):
        found = step.get("recalibration") or {}
        if found.get("folded") or step is record:
            lines += _recalibrated(found)
        lines += _healed(step.get("healing") or {})
    lines += [f"Note: {text(str(note))}.\n" for note in plan.get("notes", [])]
    if command := record.get("command"):
        lines += ["Made by:", "", *code_block([str(command)]), ""]
    lines += ["`trueprune.json` holds the plan, the seed, the hash of the calibration tokens and the versions.", ""]
    return "\n".join(lines)


def _pruned(record: Mapping[str, Any], plan: Mapping[str, Any]) -> list[str]:
    # A later step that dropped layers or repaired has a method of its own.
    later = str(record.get("method")).startswith(("drop", "repair"))
    method = plan.get("method") if later else record.get("method")
    return [
        f"Pruned with trueprune: method {code_span(str(method))}, "
        f"score {code_span(str(plan.get('score')))}, "
        f"pattern {code_span(str(plan.get('pattern')))}, target sparsity {plan.get('sparsity')}, "
        f"{len(plan.get('blocks', []))} blocks, measured sparsity of the pruned matrices "
        f"{record.get('measured_sparsity', 0):.4f}.",
        "",
        "The zeros are stored in ordinary dense tensors: any engine loads the checkpoint, and none runs it faster "
        "or in less memory for unstructured zeros.",
        "",
    ]


def _recalibrated(found: Mapping[str, Any]) -> list[str]:
    if not found:
        return []
    tasks = ", ".join(f"{len(items)} items of {text(task)}" for task, items in found.get("fitted_on", {}).items())
    if found.get("folded"):
        said = (
            f"Recalibrated with trueprune: all logits are divided by the temperature T = {found['temperature']:.4f}, "
            f"fitted on {tasks}. This is part of the weights: any engine serves it. Greedy answers are as before; "
            "sampling at temperature 1 is what sampling at T was."
        )
    else:
        said = (
            f"`recalibration.json` holds a recalibration by `{found['method']}` fitted on {tasks}, for "
            "`trueprune.read_recalibration`. The weights are as before."
        )
    return [said, ""]


def _healed(found: Mapping[str, Any]) -> list[str]:
    if not found:
        return []
    questions = ", ".join(
        f"{len(items)} questions of {text(name)}" for name, items in found.get("fitted_on", {}).items()
    )
    taught = f" from {code_span(str(found['teacher']))}" if found.get("teacher") else ""
    options = found.get("options", {})
    kept = f"the weights of step {found['best_step']} are kept" if found.get("best_step") else "nothing was gained"
    return [
        f"Healed with trueprune: `{found['method']}`{taught}, {options.get('adapt')}, blocks "
        f"{', '.join(map(str, found['layers']))} of {found.get('blocks')} (chosen by `{found['chosen_by']}`), "
        f"{found['steps']} steps of {options.get('batch')} x {options.get('window')} tokens"
        f"{f' and {questions}' if questions else ''}; {found['stopped']}, {kept}. Weights that pruning had made zero "
        "are zero still. A temperature that was fitted before should be fitted again.",
        "",
    ]


def _dropped(drop: Mapping[str, Any]) -> list[str]:
    away = set(drop.get("blocks") or ()) | (set(drop.get("attention") or ()) & set(drop.get("mlp") or ()))
    listed = {"blocks": sorted(away)} | {
        kind: [i for i in drop.get(kind) or () if i not in away] for kind in ("attention", "mlp")
    }
    gone = [
        f"{name} {', '.join(map(str, listed[kind]))}"
        for kind, name in (
            ("blocks", "blocks"),
            ("attention", "the attention of blocks"),
            ("mlp", "the MLPs of blocks"),
        )
        if listed[kind]
    ]
    lines = [
        f"Taken away with trueprune, of {drop.get('n_blocks')} blocks counted from 0: {'; '.join(gone)}. "
        f"Chosen by {code_span(str(drop.get('by')))}, {drop.get('schedule')}.",
        "",
    ]
    if listed["attention"] or listed["mlp"]:
        lines += [
            "Weights, work and key-value cache of a dropped sublayer are gone. Load the checkpoint with "
            "`trueprune.load(folder)`, or with `AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)`; "
            "`trueprune export` writes it for other engines.",
            "",
        ]
    else:
        lines += ["The rest is an ordinary checkpoint with fewer blocks, which any engine runs faster.", ""]
    return lines
