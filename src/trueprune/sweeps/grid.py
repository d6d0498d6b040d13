"""What a sweep goes through: models, what is done to them, and how the results are measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from trueprune._support.errors import PlanError
from trueprune.audits.calibration import ConfidenceOptions
from trueprune.audits.context import AuditOptions, AuditSettings
from trueprune.audits.efficiency import EfficiencyOptions
from trueprune.audits.faithfulness.explain import ExplanationOptions
from trueprune.audits.qa.options import TruthOptions
from trueprune.edits.rule import EditOptions
from trueprune.jobs.common import LoadOptions
from trueprune.jobs.hallucination import HallucinationOptions
from trueprune.jobs.layer_choice import DropOptions
from trueprune.observe.moments import NearZero
from trueprune.plans.avss import AvssOptions
from trueprune.plans.eavss import EavssOptions
from trueprune.plans.evidence import AllocationOptions
from trueprune.repairs.healing import HealingOptions
from trueprune.reports.gates.contract import Gate
from trueprune.texts.calibration import CalibrationOptions
from trueprune.texts.qa import QaOptions
from trueprune.texts.tasks.questions import TaskOptions


@dataclass(frozen=True)
class RayOptions:
    """What a cell is given where cells run as Ray tasks.

    **Arguments:**

    - `cpus`: processor cores of a cell; it computes with so many threads.
    - `gpus`: GPUs of a cell; below 1, cells share one.
    - `retries`: how often a cell is begun again after its worker died. An error of the cell itself is not tried again.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    retries: int = 3

    def __post_init__(self):
        if not (self.cpus > 0 and self.gpus >= 0 and self.retries >= 0):
            raise PlanError(
                f"cpus {self.cpus}, gpus {self.gpus}, retries {self.retries} are not what a cell can be given",
                "Use e.g. cpus = 1, gpus = 0, retries = 3",
            )


@dataclass(frozen=True)
class Grid:
    """Models by methods by patterns by sparsities by repairs by seeds, and how the results are measured.

    An n:m pattern fixes its own sparsity, and a drop its own share: neither is crossed with `sparsities`. What draws
    nothing at random (magnitude, a drop of the last layers) is made once, with the first seed.

    **Arguments:**

    - `models`: folders, `demo`, GGUF files or hub ids.
    - `methods`: of `trueprune prune --method`; with another score as `tplo+sparsegpt`.
    - `drop`: layers taken away, each a `DropOptions`; beside the methods.
    - `patterns`: `unstructured`, or `n:m` such as `2:4`.
    - `sparsities`: shares of zeros, each in [0, 1), for `unstructured`.
    - `repairs`: `none`, or of `trueprune repair --with`.
    - `seeds`: of what calibration draws, of random drops, and of healing. Audits keep their own seed, `measuring.seed`.
    - `instruments`: of `trueprune audit --instruments`; by default its default and what the gate bounds.
    - `gate`: the file of a gate (looked for beside the grid first), or a `Gate`.
    - `profile`: a gate that ships: `strict`, `balanced` or `lenient`.
    - `batch_tokens`: tokens that go through a block in one call.
    - `calibration`: what is calibrated on, and what healing trains on.
    - `allocation`: constants of OWL, SWL, TPLO and `eavss`.
    - `edit`: constants of the scores.
    - `scoring`, `zero`: how AVSS is taken.
    - `hallucination`, `contrast`: which answers EAVSS compares, and how it is taken.
    - `healing`: how models are healed. `distill` learns from the dense model.
    - `loading`: how models are loaded.
    - `measuring`: how the audit measures.
    - `timing`: how efficiency measures.
    - `answering`: the tasks that are audited, and on whose other questions recalibrations are fitted.
    - `confidence`: what calibration reports.
    - `explaining`: how faithfulness explains.
    - `asking`: the question sets that are audited; EAVSS and healing use their other questions.
    - `truth`: how answers in words are had and judged.
    - `ray`: what a cell is given on Ray.
    """

    models: Sequence[str | Path]
    methods: Sequence[str] = ()
    drop: Sequence[DropOptions] = ()
    patterns: Sequence[str] = ("unstructured",)
    sparsities: Sequence[float] = (0.5,)
    repairs: Sequence[str] = ("none",)
    seeds: Sequence[int] = (0,)
    instruments: Sequence[str] = ()
    gate: str | Path | Gate | None = None
    profile: str | None = None
    batch_tokens: int | None = None
    calibration: CalibrationOptions = CalibrationOptions()
    allocation: AllocationOptions = AllocationOptions()
    edit: EditOptions = EditOptions()
    scoring: AvssOptions = AvssOptions()
    zero: NearZero = NearZero()
    hallucination: HallucinationOptions = HallucinationOptions()
    contrast: EavssOptions = EavssOptions()
    healing: HealingOptions = HealingOptions()
    loading: LoadOptions = LoadOptions()
    measuring: AuditOptions = AuditOptions()
    timing: EfficiencyOptions = EfficiencyOptions()
    answering: TaskOptions = TaskOptions()
    confidence: ConfidenceOptions = ConfidenceOptions()
    explaining: ExplanationOptions = ExplanationOptions()
    asking: QaOptions = QaOptions()
    truth: TruthOptions = TruthOptions()
    ray: RayOptions = RayOptions()

    def __post_init__(self):
        # Lists are natural in Python, and do not hash.
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, list):
                object.__setattr__(self, field.name, tuple(value))
        object.__setattr__(self, "models", tuple(str(model) for model in self.models))

    @property
    def settings(self) -> AuditSettings:
        """How every instrument measures."""
        return AuditSettings(
            self.measuring, self.timing, self.answering, self.confidence, self.explaining, self.asking, self.truth
        )
