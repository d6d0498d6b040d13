"""What each instrument of an audit costs, on each model that is audited.

Legend: N statements, L blocks, D residual width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trueprune._support.errors import AuditError
from trueprune.audits.context import AuditSettings
from trueprune.audits.efficiency_runs import WARM_UP
from trueprune.audits.instruments import check_instruments
from trueprune.estimates import asking
from trueprune.estimates.forward import LOGITS, Forwards
from trueprune.estimates.observing import STATEMENT_TOKENS
from trueprune.estimates.reading import Reading, count_tokens, texts
from trueprune.estimates.work import Number, Part, Step, Work
from trueprune.observe.continuations import BATCH_TOKENS
from trueprune.observe.generate import BATCH_TOKENS as DECODED_TOKENS
from trueprune.texts.tasks.pools import harness_tasks

RUN = "audit"
# Newton steps of a logistic regression (about ten), and which probes solve one.
NEWTON, REGRESSIONS = 10, {"logistic": 1, "ttpd": 1, "ccs": 2}
# Ours: how often the activations of the training statements are read to find the layer that a split is probed at.
LOOKED = 10


@dataclass(frozen=True)
class AuditCost:
    """What an audit would do.

    **Arguments:**

    - `forwards`: the model; pruned ones count as large as the dense one.
    - `settings`: how instruments measure.
    - `models`: how many models are audited, the dense one among them.
    """

    forwards: Forwards
    settings: AuditSettings
    models: int

    def steps(self, instruments: Sequence[str]) -> list[Step]:
        """A step an instrument. What several read (activations, answers) is read for the first of them.

        **Raises:** `AuditError` for an unknown instrument; `TextError` for items that cannot be had.
        """
        check_instruments(instruments)
        shared: set[str] = set()
        found = []
        # Open questions are answered for all sets, truthful generation for some of them: these are read above then.
        for name in sorted(dict.fromkeys(instruments), key=lambda name: name == "truthful-generation"):
            kind, make = _INSTRUMENTS[name]
            if kind in shared and name not in ("lie-detection", "separation"):
                found.append(Step(RUN, f"{name} (read above)", ()))
                continue
            found.append(make(self, kind in shared))
            shared.add(kind)
        return found

    def _all(self, work: Work, *, split: bool = True, passes: Number = 0.0, head: bool = False) -> Part:
        return Part(work * self.models, split=split, passes=passes * self.models, head=head)

    def _perplexity(self, _: bool) -> Step:
        options, forwards = self.settings.measuring, self.forwards
        longest = forwards.shape.max_length
        if longest and options.window > longest:
            raise AuditError(f"the window {options.window} is over the model's limit of {longest}", "Use a smaller one")
        windows = asking.perplexity_windows(options)
        reading = Reading(windows * options.window, windows * options.window**2, windows, windows * options.window)
        logits = options.window * forwards.shape.vocabulary * (forwards.size + 4 * (LOGITS - 1))
        return Step(
            RUN,
            "perplexity",
            (self._all(forwards.whole(reading), passes=windows, head=True),),
            working=max(forwards.live(options.window), logits),
            detail={"windows": windows, "tokens": reading.tokens * self.models},
        )

    def _statements(self, known: bool) -> tuple[list[Part], Number, dict[str, Number]]:
        """Activations of the statements, unless they are there already; the bytes of one model's."""
        forwards, shape = self.forwards, self.forwards.shape
        statements = asking.audited_statements(self.settings.measuring)
        kept = len(statements) * len(shape.blocks) * shape.width * 4.0
        if known:
            return [], kept, {"statements": len(statements)}
        reading = texts([max(1, count_tokens(text)) for text in statements.texts], STATEMENT_TOKENS)
        stack = self._all(forwards.stack(reading), passes=reading.forwards)
        # The cache names activations by the hash of the weights.
        named = Work(hashed=forwards.weights, written=kept) if self.settings.measuring.cache else Work()
        return [stack, self._all(named, split=False)], kept, {"statements": len(statements), "tokens": reading.tokens}

    def _lie_detection(self, known: bool) -> Step:
        options, shape = self.settings.measuring, self.forwards.shape
        parts, kept, detail = self._statements(known)
        rows = asking.training_rows(asking.audited_statements(options), options)
        solves = sum(REGRESSIONS.get(probe, 0) for probe in options.probes)
        # On a pruned model probes are retrained, and trained on the dense one again to be frozen.
        fits = solves * (1 + 2 * (self.models - 1))
        fitting = Work(flops64=fits * sum(_regression(n, shape.width) for n in rows))
        looking = Work(host=self.models * LOOKED * sum(rows) * len(shape.blocks) * shape.width * 4)
        return Step(
            RUN,
            "lie-detection",
            (*parts, Part(fitting + looking)),
            working=self.forwards.live(STATEMENT_TOKENS),
            host=kept * self.models + max(rows, default=0) * len(shape.blocks) * shape.width * 8.0,
            detail={**detail, "splits": len(rows), "regressions": fits * len(rows)},
        )

    def _separation(self, known: bool) -> Step:
        options, width = self.settings.measuring, self.forwards.shape.width
        parts, kept, detail = self._statements(known)
        # Resampled as matrix products: the model's own interval, and both models' for each change.
        resamples = options.resamples * (1 + 3 * (self.models - 1))
        work = Work(flops64=2 * resamples * detail["statements"] * width, host=kept * self.models * LOOKED)
        return Step(
            RUN,
            "separation",
            (*parts, Part(work)),
            working=self.forwards.live(STATEMENT_TOKENS),
            host=kept * self.models + 4 * 8 * options.resamples * width,
            detail=detail,
        )

    def _choices(self, name: str) -> Step:
        reading, items = asking.choice_reading(self.settings.answering)
        return self._read(name, reading, items, "items")

    def _accuracy(self, _: bool) -> Step:
        return self._choices("accuracy")

    def _calibration(self, _: bool) -> Step:
        return self._choices("calibration")

    def _truthfulness(self, _: bool) -> Step:
        reading, items = asking.answer_choices(asking.asked_questions(self.settings.asking))
        return self._read("truthfulness", reading, items, "questions")

    def _read(self, name: str, reading: Reading, items: Number, what: str) -> Step:
        forwards = self.forwards
        rows = BATCH_TOKENS / max(reading.batch, 1) * reading.positions / max(reading.forwards, 1)
        return Step(
            RUN,
            name,
            (self._all(forwards.whole(reading), passes=reading.forwards, head=True),),
            working=forwards.live(BATCH_TOKENS)
            + forwards.cache(2 * BATCH_TOKENS)
            + rows * forwards.shape.vocabulary * (forwards.size + 8),
            detail={what: items, "tokens": reading.tokens * self.models},
        )

    def _faithfulness(self, _: bool) -> Step:
        masked, soft, masks, items = asking.explanation_reading(self.settings.answering, self.settings.explaining)
        step = self._read("faithfulness", masked, items, "items")
        gradients = self._all(self.forwards.whole(soft) * 2, passes=2 * soft.forwards, head=True)
        # For gradients the activations of all blocks are kept.
        kept = self.forwards.live(soft.batch) * len(self.forwards.shape.blocks)
        return Step(
            RUN,
            step.name,
            (*step.parts, *([gradients] if soft.forwards else [])),
            working=max(step.working, kept),
            detail={**step.detail, "masked texts": masks * self.models},
        )

    def _open_qa(self, _: bool) -> Step:
        return self._generated("open-qa", asking.asked_questions(self.settings.asking))

    def _generation(self, _: bool) -> Step:
        wrong = {
            name: rows
            for name, rows in asking.asked_questions(self.settings.asking).items()
            if any(one.question.wrong for one in rows)
        }
        return self._generated("truthful-generation", wrong)

    def _generated(self, name: str, found: dict[str, list[asking.AskedQuestion]]) -> Step:
        """Prompts once, then a token at a time. Answers end at their line; all `--new-tokens` are counted."""
        new, forwards = self.settings.truth.new_tokens, self.forwards
        work, passes, most, count = Work(), 0.0, 0.0, 0
        for rows in found.values():
            lengths = sorted(max(1, count_tokens(one.prompt)) for one in rows)
            count += len(lengths)
            for batch in _decoded_batches(lengths, new):
                width = max(batch)
                read = Reading(len(batch) * width, len(batch) * width**2, 1, len(batch))
                work += forwards.whole(read) + forwards.decode(len(batch), width + new / 2, new - 1)
                passes += new
                most = max(most, len(batch) * (width + new))
        return Step(
            RUN,
            name,
            (self._all(work, passes=passes, head=True),),
            working=forwards.live(most) + forwards.cache(2 * most),
            detail={"questions": count, "tokens written (at most)": count * new * self.models},
        )

    def _efficiency(self, _: bool) -> Step:
        o, forwards = self.settings.timing, self.forwards
        prompt = Reading(o.timing_batch * o.prompt_tokens, o.timing_batch * o.prompt_tokens**2, 1, o.timing_batch)
        prefill = forwards.whole(prompt)
        step = forwards.decode(o.timing_batch, o.prompt_tokens, 1)
        rounds = o.timing_rounds + WARM_UP
        timed = prefill * rounds + step * (rounds * o.decode_tokens)
        # Each pruned model is timed beside the dense one. Both are counted once more for FLOPs and for memory.
        runs = timed * (1 + 2 * (self.models - 1)) + (prefill + step) * (2 * self.models)
        counted = Work(plain=3 * forwards.weights * self.models)
        copies = 2 if self.models > 1 else 1
        return Step(
            RUN,
            "efficiency",
            (Part(runs + counted),),
            working=forwards.live(prompt.tokens) + forwards.cache(o.timing_batch * (o.prompt_tokens + o.decode_tokens)),
            copies=copies,
            detail={"rounds": rounds},
        )

    @property
    def notes(self) -> list[str]:
        """What is not counted."""
        names = harness_tasks(self.settings.answering.tasks)
        return [f"tasks of lm-eval are not counted: {', '.join(names)}"] if names else []


def _regression(rows: int, width: int) -> Number:
    """Operations of a logistic regression by Newton's method, through the Gram matrix where that is smaller."""
    if rows < width:
        return 2 * rows**2 * width + NEWTON * (rows**3 / 3 + 8 * rows**2)
    return NEWTON * (2 * rows * width**2 + width**3 / 3)


def _decoded_batches(lengths: Sequence[int], new: int) -> list[list[int]]:
    """Prompts by length, as many at once as `observe.generate` takes."""
    found: list[list[int]] = []
    for length in lengths:
        size = length + new
        if found and size * (len(found[-1]) + 1) <= DECODED_TOKENS:
            found[-1].append(length)
        else:
            found.append([length])
    return found


# What each instrument reads, by whose name others that read the same are known; and the step.
_INSTRUMENTS: dict[str, tuple[str, Callable[[AuditCost, bool], Step]]] = {
    "perplexity": ("text", AuditCost._perplexity),
    "lie-detection": ("statements", AuditCost._lie_detection),
    "separation": ("statements", AuditCost._separation),
    "efficiency": ("timing", AuditCost._efficiency),
    "accuracy": ("tasks", AuditCost._accuracy),
    "calibration": ("tasks", AuditCost._calibration),
    "faithfulness": ("explanations", AuditCost._faithfulness),
    "open-qa": ("answers", AuditCost._open_qa),
    "truthfulness": ("choices", AuditCost._truthfulness),
    "truthful-generation": ("answers", AuditCost._generation),
}
