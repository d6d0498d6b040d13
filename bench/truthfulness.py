"""Truthfulness by multiple choice: time against one full forward an answer, and the same values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from bench.confidence import faster, paired, token_ids
from trueprune.audits.qa.choices import Choices, score_choices
from trueprune.models import LoadedModel
from trueprune.texts.qa import AskedQuestion, QaOptions, asked

ASKED = 40
AT_LEAST = 4.0
# Log-likelihoods of whole answers, in nats; sums of some ten single-precision terms.
DIFFERENCE = 1e-3


def bench_choices(
    dense: LoadedModel, primers: Sequence[str] = ("none", "own"), limit: int = ASKED
) -> list[dict[str, Any]]:
    """The package's misconceptions with and without solved questions in front: ours against the plain loop."""
    rows = []
    for primer in primers:
        options = QaOptions(qa=("misconceptions",), primer=primer)
        questions = asked("misconceptions", limit, options, tokenizer=dense.tokenizer)
        found = score_choices(dense, questions, set_name="misconceptions")
        plain = one_forward_an_answer(dense, questions, found)
        error = max(float(np.abs(one.scores_C - other_C).max()) for one, other_C in zip(found, plain, strict=True))
        times = paired(
            [
                (
                    lambda questions=questions: score_choices(dense, questions, set_name="misconceptions"),
                    lambda questions=questions, found=found: one_forward_an_answer(dense, questions, found),
                )
            ]
        )
        row = faster(
            f"MC scoring, primer {primer}, against one forward an answer",
            times,
            AT_LEAST,
            questions=len(questions),
            answers=sum(len(one.answers) for one in found),
            max_difference=error,
            difference_bound=DIFFERENCE,
        )
        row["passed"] = row["passed"] and error <= DIFFERENCE
        rows.append(row)
    return rows


@torch.no_grad()
def one_forward_an_answer(
    loaded: LoadedModel, questions: Sequence[AskedQuestion], found: Sequence[Choices]
) -> list[np.ndarray]:
    """The summed log-probability of each answer, the whole prompt with one answer a forward."""
    model: Any = loaded.model
    scores = []
    for one, choices in zip(questions, found, strict=True):
        prompt = len(token_ids(loaded, one.prompt, one.special))
        row = []
        for answer in choices.answers:
            ids = torch.tensor([token_ids(loaded, f"{one.prompt} {answer}", one.special)], device=loaded.device)
            logprobs = model(ids, use_cache=False).logits[0].log_softmax(-1)
            row.append(float(logprobs[prompt - 1 : -1].gather(1, ids[0, prompt:, None]).sum()))
        scores.append(np.array(row))
    return scores
