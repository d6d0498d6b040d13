"""trueprune: prune causal language models, and measure what pruning does to the things that accuracy hides.

The names below are the public interface. They are imported when first used, so that the command line answers `--help`
without waiting for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trueprune._support.errors import AuditError as AuditError
    from trueprune._support.errors import ModelError as ModelError
    from trueprune._support.errors import OutputError as OutputError
    from trueprune._support.errors import PlanError as PlanError
    from trueprune._support.errors import RepairError as RepairError
    from trueprune._support.errors import TextError as TextError
    from trueprune._support.errors import TruepruneError as TruepruneError
    from trueprune._support.progress import show_progress as show_progress
    from trueprune.audits import AuditOptions as AuditOptions
    from trueprune.audits import AuditSettings as AuditSettings
    from trueprune.audits import ConfidenceOptions as ConfidenceOptions
    from trueprune.audits import EfficiencyOptions as EfficiencyOptions
    from trueprune.audits import Explanation as Explanation
    from trueprune.audits import ExplanationOptions as ExplanationOptions
    from trueprune.audits import Measurement as Measurement
    from trueprune.audits import Predictions as Predictions
    from trueprune.audits import Question as Question
    from trueprune.audits import accuracy_of as accuracy_of
    from trueprune.audits import agreement_of as agreement_of
    from trueprune.audits import calibration_of as calibration_of
    from trueprune.audits import explain as explain
    from trueprune.audits import faithfulness_of as faithfulness_of
    from trueprune.audits import measure_efficiency as measure_efficiency
    from trueprune.audits import measure_lie_detection as measure_lie_detection
    from trueprune.audits import measure_perplexity as measure_perplexity
    from trueprune.audits import predict as predict
    from trueprune.audits import read_explanations as read_explanations
    from trueprune.audits import read_predictions as read_predictions
    from trueprune.audits.qa import Answers as Answers
    from trueprune.audits.qa import TruthOptions as TruthOptions
    from trueprune.audits.qa import generation_of as generation_of
    from trueprune.audits.qa import open_qa_of as open_qa_of
    from trueprune.audits.qa import read_answers as read_answers
    from trueprune.audits.qa import score_choices as score_choices
    from trueprune.audits.qa import truthfulness_of as truthfulness_of
    from trueprune.edits import EditOptions as EditOptions
    from trueprune.edits import apply_drop as apply_drop
    from trueprune.edits import apply_plan as apply_plan
    from trueprune.edits import cumulative_mass as cumulative_mass
    from trueprune.edits import lowest_in_group as lowest_in_group
    from trueprune.edits import lowest_in_matrix as lowest_in_matrix
    from trueprune.edits import lowest_in_row as lowest_in_row
    from trueprune.edits import magnitude_score as magnitude_score
    from trueprune.edits import measured_sparsity as measured_sparsity
    from trueprune.edits import sparsegpt_solve as sparsegpt_solve
    from trueprune.edits import wanda_score as wanda_score
    from trueprune.jobs import DropOptions as DropOptions
    from trueprune.jobs import GateOptions as GateOptions
    from trueprune.jobs import HallucinationOptions as HallucinationOptions
    from trueprune.jobs import LoadOptions as LoadOptions
    from trueprune.jobs import PruneResult as PruneResult
    from trueprune.jobs import RepairResult as RepairResult
    from trueprune.jobs import StudyOptions as StudyOptions
    from trueprune.jobs import audit as audit
    from trueprune.jobs import demo as demo
    from trueprune.jobs import drop as drop
    from trueprune.jobs import estimate as estimate
    from trueprune.jobs import export as export
    from trueprune.jobs import prune as prune
    from trueprune.jobs import repair as repair
    from trueprune.jobs import report as report
    from trueprune.jobs import scan as scan
    from trueprune.jobs import study_attention as study_attention
    from trueprune.models import LoadedModel as LoadedModel
    from trueprune.models import load as load
    from trueprune.models import read_anatomy as read_anatomy
    from trueprune.models import save as save
    from trueprune.observe import AnswerProfile as AnswerProfile
    from trueprune.observe import BlockStream as BlockStream
    from trueprune.observe import LayerProfile as LayerProfile
    from trueprune.observe import NearZero as NearZero
    from trueprune.observe import last_token_activations as last_token_activations
    from trueprune.observe import observe_answers as observe_answers
    from trueprune.observe import observe_blocks as observe_blocks
    from trueprune.observe import observe_outliers as observe_outliers
    from trueprune.observe import outlier_percentage as outlier_percentage
    from trueprune.observe import separation_ratio as separation_ratio
    from trueprune.plans import AllocationOptions as AllocationOptions
    from trueprune.plans import AvssOptions as AvssOptions
    from trueprune.plans import Drop as Drop
    from trueprune.plans import EavssOptions as EavssOptions
    from trueprune.plans import EavssResult as EavssResult
    from trueprune.plans import Evidence as Evidence
    from trueprune.plans import Pattern as Pattern
    from trueprune.plans import Plan as Plan
    from trueprune.plans import auto_pivot as auto_pivot
    from trueprune.plans import avss as avss
    from trueprune.plans import eavss_of as eavss_of
    from trueprune.plans import make_plan as make_plan
    from trueprune.plans import nm_zeros as nm_zeros
    from trueprune.plans import owl_keep as owl_keep
    from trueprune.plans import project_keep as project_keep
    from trueprune.plans import prone_layers as prone_layers
    from trueprune.plans import read_plan as read_plan
    from trueprune.plans import swl_keep as swl_keep
    from trueprune.plans import tplo_keep as tplo_keep
    from trueprune.repairs import fold_temperature as fold_temperature
    from trueprune.repairs import read_recalibration as read_recalibration
    from trueprune.repairs.healing import HealingOptions as HealingOptions
    from trueprune.reports import AuditReport as AuditReport
    from trueprune.reports import Estimate as Estimate
    from trueprune.reports import paired_change as paired_change
    from trueprune.reports.gates import Check as Check
    from trueprune.reports.gates import Gate as Gate
    from trueprune.reports.gates import Verdict as Verdict
    from trueprune.reports.gates import judge as judge
    from trueprune.reports.gates import profile as profile
    from trueprune.reports.gates import read_gate as read_gate
    from trueprune.reports.join import join_audits as join_audits
    from trueprune.sweeps import Grid as Grid
    from trueprune.sweeps import SweepReport as SweepReport
    from trueprune.sweeps import sweep as sweep
    from trueprune.texts import CalibrationOptions as CalibrationOptions
    from trueprune.texts import ChoiceItem as ChoiceItem
    from trueprune.texts import PromptOptions as PromptOptions
    from trueprune.texts import Statement as Statement
    from trueprune.texts import StatementSet as StatementSet
    from trueprune.texts import TaskItem as TaskItem
    from trueprune.texts import TaskOptions as TaskOptions
    from trueprune.texts import TokenBatch as TokenBatch
    from trueprune.texts import calibration_tokens as calibration_tokens
    from trueprune.texts import enrich as enrich
    from trueprune.texts import load_statements as load_statements
    from trueprune.texts import questions as questions
    from trueprune.texts.qa import JudgedAnswer as JudgedAnswer
    from trueprune.texts.qa import QaOptions as QaOptions
    from trueprune.texts.qa import answer_pairs as answer_pairs
    from trueprune.texts.qa import asked as asked
    from trueprune.texts.qa import set_questions as set_questions

_ROOMS = {
    "_support.errors": "AuditError ModelError OutputError PlanError RepairError TextError TruepruneError",
    "_support.progress": "show_progress",
    "audits": "AuditOptions AuditSettings ConfidenceOptions EfficiencyOptions Explanation ExplanationOptions "
    "Measurement Predictions Question accuracy_of agreement_of calibration_of explain "
    "faithfulness_of measure_efficiency measure_lie_detection measure_perplexity predict "
    "read_explanations read_predictions",
    "audits.qa": "Answers TruthOptions generation_of open_qa_of read_answers score_choices truthfulness_of",
    "edits": "EditOptions apply_drop apply_plan cumulative_mass lowest_in_group lowest_in_matrix "
    "lowest_in_row magnitude_score measured_sparsity sparsegpt_solve wanda_score",
    "jobs": "DropOptions GateOptions HallucinationOptions LoadOptions PruneResult RepairResult StudyOptions audit "
    "demo drop estimate export prune repair report scan study_attention",
    "models": "LoadedModel load read_anatomy save",
    "observe": "AnswerProfile BlockStream LayerProfile NearZero last_token_activations observe_answers "
    "observe_blocks observe_outliers outlier_percentage separation_ratio",
    "plans": "AllocationOptions AvssOptions Drop EavssOptions EavssResult Evidence Pattern Plan auto_pivot "
    "avss eavss_of make_plan nm_zeros owl_keep project_keep prone_layers read_plan swl_keep "
    "tplo_keep",
    "repairs": "fold_temperature read_recalibration",
    "repairs.healing": "HealingOptions",
    "reports": "AuditReport Estimate paired_change",
    "reports.gates": "Check Gate Verdict judge profile read_gate",
    "reports.join": "join_audits",
    "sweeps": "Grid SweepReport sweep",
    "texts": "CalibrationOptions ChoiceItem PromptOptions Statement StatementSet TaskItem TaskOptions "
    "TokenBatch calibration_tokens enrich load_statements questions",
    "texts.qa": "JudgedAnswer QaOptions answer_pairs asked set_questions",
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names.split()}

__version__ = "0.1.0"
__all__ = ["__version__", *_ROOM_OF]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _ROOM_OF:
        raise AttributeError(f"module 'trueprune' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"trueprune.{_ROOM_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
