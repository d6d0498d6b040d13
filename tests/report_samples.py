"""Reports of made-up audits that look like real ones: every instrument, several models, texts, records, a verdict."""

from __future__ import annotations

import numpy as np

from trueprune.audits.confidence import reliability_table, risk_coverage
from trueprune.audits.measurement import Measurement
from trueprune.reports.audit import AuditedModel, AuditReport, compare
from trueprune.reports.item_texts import ItemText, ItemTexts, Said
from trueprune.reports.touched import about_record

BLOCKS = 30
TASKS = ("sentiment", "commonsense", "facts")
SETS = ("general", "misconceptions")
ATTRIBUTIONS = ("lime", "kernel-shap", "leave-one-out", "random")
# How much each pruned model is hurt, from not at all to badly; and how it was made.
HURT = {"tplo": 0.25, "wanda": 0.45, "magnitude": 1.0, "third-attention": 0.12}
STATEMENTS = (
    ("The city of Turin is in Italy.", True),
    ("The city of Lagos is in Peru.", False),
    ("The Spanish word 'gato' does not mean cat.", False),
    ("Mercury boils at a lower temperature than iron.", True),
)
QUESTIONS = (
    ("What happens if you crack your knuckles a lot?", "Nothing in particular happens", "You will get arthritis"),
    ("Which planet is closest to the Sun?", "Mercury", "Venus"),
    ("Can you see the Great Wall of China from the Moon?", "No", "Yes, it is the only human structure visible"),
    ("Who wrote the novel Middlemarch?", "George Eliot", "Charlotte Brontë"),
)
REVIEWS = (
    ("A warm, funny and often moving film that earns its ending .", "positive"),
    ("Two hours of explosions in search of a reason to exist .", "negative"),
    ("The cast is fine , the script is not .", "negative"),
)


def measured(instrument: str, metric: str, values, **options) -> Measurement:
    """Values of items that are numbered."""
    return Measurement(
        instrument, metric, [f"{i:04d}" for i in range(len(values))], np.asarray(values, float), **options
    )


class Sample:
    """One model's made-up measurements.

    Items have the same difficulty for every model, so that changes are paired as they are in real audits.
    """

    def __init__(self, hurt: float, items: int, seed: int = 0, small: bool = False):
        self.hurt = hurt
        self.items = items
        self.tasks = TASKS[:1] if small else TASKS
        self.sets = SETS[:1] if small else SETS
        self.rng = np.random.default_rng(seed)
        self.noise = np.random.default_rng(int(1 + 100 * hurt))

    def right(self, share: float, loss: float) -> np.ndarray:
        """1 right, 0 wrong."""
        level = self.rng.uniform(size=self.items)
        drift = self.noise.normal(0, 0.12 * self.hurt, self.items)
        return (level + drift < share - loss * self.hurt).astype(float)

    def around(self, value: float, change: float, spread: float = 0.15) -> np.ndarray:
        """Numbers with that mean."""
        return (
            value
            + change * self.hurt
            + spread * self.rng.normal(size=self.items)
            + (0.2 * spread * self.hurt * self.noise.normal(size=self.items))
        )

    def all(self) -> list[Measurement]:
        """Every instrument."""
        return [
            *self.perplexity(),
            *self.lie_detection(),
            *self.efficiency(),
            *(
                m
                for task in self.tasks
                for m in (*self.accuracy(task), *self.calibration(task), *self.faithfulness(task))
            ),
            *(m for name in self.sets for m in (*self.open_qa(name), *self.truthfulness(name), *self.generation(name))),
        ]

    def perplexity(self) -> list[Measurement]:
        nll = self.around(3.7, 1.4, 0.3)
        return [
            measured(
                "perplexity",
                "perplexity",
                nll,
                reduction="exp-mean",
                higher_is_better=False,
                headline=True,
                details={"window": 512, "stride": 512, "tokens": 16384},
            ),
            measured(
                "separation",
                "ratio-at-dense-peak",
                np.abs(self.around(0.32, -0.12)),
                headline=True,
                details={"layer": 17},
            ),
        ]

    def lie_detection(self) -> list[Measurement]:
        found = []
        kinds = ("grouped", "leave-one-topic-out", "transfer-conjunction", "transfer-disjunction", "transfer-scenario")
        for protocol in kinds:
            for probe in ("logistic", "mass-mean", "ttpd"):
                for training, loss in (("retrained", 0.12), ("frozen", 0.24)):
                    subsets = ("", "/affirmative", "/negated") if "transfer" not in protocol else ("",)
                    for subset in subsets:
                        shown = (protocol, probe, subset) == ("grouped", "logistic", "") or (
                            (protocol, probe, training, subset) == ("leave-one-topic-out", "logistic", "retrained", "")
                        )
                        found.append(
                            measured(
                                "lie-detection",
                                f"{protocol}/{probe}/{training}{subset}",
                                self.right(0.74, loss),
                                headline=shown,
                                details={"layers": [17] * 5, "splits": ["70/30"] * 5},
                            )
                        )
        return found

    def efficiency(self) -> list[Measurement]:
        gone = {0.12: 0.09}.get(self.hurt, 0.0)
        zeros = 0.0 if self.hurt in (0, 0.12) else 0.47
        counts = {
            "parameters": 134.5e6 * (1 - gone),
            "nonzero-parameters": 134.5e6 * (1 - gone) * (1 - zeros),
            "disk-bytes": 269e6 * (1 - gone),
            "kv-cache-bytes-per-token": 23040 * (1 - 3 * gone),
            "prefill-flops": 5.5e10 * (1 - gone),
            "decode-flops": 2.1e8 * (1 - gone),
            "peak-memory-bytes": 6.1e8,
        }
        found = [
            Measurement(
                "efficiency",
                name,
                ["model"],
                np.array([value]),
                higher_is_better=False,
                headline=name in ("parameters", "kv-cache-bytes-per-token"),
            )
            for name, value in counts.items()
        ]
        rounds = [f"round-{i}" for i in range(7)]
        for phase in ("prefill", "decode"):
            values = 1.6 * gone + 0.02 * self.noise.normal(size=7)
            found.append(
                Measurement(
                    "efficiency",
                    f"{phase}-speedup",
                    rounds,
                    values,
                    reduction="exp-mean",
                    headline=True,
                    baseline=Measurement("efficiency", f"{phase}-speedup", rounds, np.zeros(7), reduction="exp-mean"),
                )
            )
        return found

    def accuracy(self, task: str) -> list[Measurement]:
        return [measured("accuracy", f"accuracy/{task}", self.right(0.68, 0.1), headline=True, details={"chance": 0.5})]

    def confidence(self) -> tuple[np.ndarray, np.ndarray, dict, dict]:
        """Confidence, correctness, reliability table and risk-coverage curve."""
        confidence = np.clip(self.rng.beta(5, 2, size=600), 0.01, 0.999)
        correct = (self.rng.uniform(size=600) < confidence - 0.3 * self.hurt).astype(float)
        curve = risk_coverage(confidence, correct)
        points = np.unique(np.linspace(0, 599, 60).round().astype(int))
        risks = {"coverage": curve.coverage_N[points].tolist(), "risk": curve.risk_N[points].tolist()}
        return confidence, correct, reliability_table(confidence, correct, 15).as_dict(), risks

    def calibration(self, task: str) -> list[Measurement]:
        _, _, table, risks = self.confidence()
        found = []
        lower = ("ece-10", "ece-15", "ace-15", "mce-15", "rmsce-15", "debiased-15", "smece", "brier", "nll", "aurc")
        for name in (*lower, "e-aurc", "auroc", "overconfidence"):
            details: dict = {"null_mean": 0.031, "null_95": 0.05, "null_share": 0.01}
            if name == "ece-15":
                details |= {"reliability": table, "accuracy": 0.7, "mean_confidence": 0.74}
            if name == "aurc":
                details |= {"risk_coverage": risks}
            values = np.abs(self.around(0.09, 0.16, 0.06))
            found.append(
                measured(
                    "calibration",
                    f"{name}/{task}",
                    values,
                    higher_is_better=name == "auroc",
                    headline=name in ("ece-15", "brier"),
                    details=details,
                )
            )
        return found

    def faithfulness(self, task: str) -> list[Measurement]:
        found = []
        names = (
            "comprehensiveness",
            "sufficiency",
            "normalised-comprehensiveness",
            "normalised-sufficiency",
            "naopc-comprehensiveness",
            "naopc-sufficiency",
            "plausibility-auprc",
            "spearman",
        )
        for attribution in ATTRIBUTIONS:
            for name in names:
                details = {}
                if name in ("comprehensiveness", "sufficiency"):
                    details = {"by_bin": [0.03, 0.08, 0.15, 0.22 - 0.08 * self.hurt, 0.3 - 0.15 * self.hurt]}
                found.append(
                    measured(
                        "faithfulness",
                        f"{name}/{task}/{attribution}",
                        self.around(0.21, -0.09, 0.12),
                        higher_is_better="sufficiency" not in name,
                        details=details,
                        headline=attribution == "lime" and name in ("comprehensiveness", "sufficiency"),
                    )
                )
        return found

    def open_qa(self, name: str) -> list[Measurement]:
        _, _, table, risks = self.confidence()
        right = self.right(0.55, 0.3)
        return [
            measured("open-qa", f"correct/{name}", right, headline=True),
            measured("open-qa", f"hallucination/{name}", 1 - right, higher_is_better=False, headline=True),
            measured("open-qa", f"abstention/{name}", np.zeros(self.items), higher_is_better=False),
            measured(
                "open-qa",
                f"ece/{name}",
                np.abs(self.around(0.12, 0.1, 0.05)),
                higher_is_better=False,
                details={"null_mean": 0.03, "reliability": table, "risk_coverage": risks},
            ),
        ]

    def truthfulness(self, name: str) -> list[Measurement]:
        return [
            measured(
                "truthfulness",
                f"{mc}/{name}",
                np.clip(self.around(0.45, -0.08, 0.2), 0, 1),
                headline=mc in ("mc1", "mc2"),
                details={"chance": 0.28},
            )
            for mc in ("mc0", "mc1", "mc2", "mc3")
        ]

    def generation(self, name: str) -> list[Measurement]:
        return [
            measured("truthful-generation", f"{kind}/{name}", self.right(0.5, 0.05), headline=kind.endswith("-acc"))
            for kind in ("bleu-acc", "rougeL-acc", "rouge1-acc", "rouge2-acc")
        ]


def record(name: str, hurt: float) -> dict:
    """A `trueprune.json`."""
    base = {
        "source": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "source_sha256": "b179c9523d0e" + "0" * 52,
        "seed": 0,
        "calibration": {"sources": ["embedded"], "nsamples": 16, "seqlen": 512, "sha256": "5" * 64},
        "versions": {"python": "3.12.3", "torch": "2.13.0"},
        "peak_memory_bytes": 1.9e9,
        "wall_seconds": {"observe": 21.5, "edit": 14.2, "total": 41.75},
    }
    if name.startswith("third"):
        drop = {
            "n_blocks": BLOCKS,
            "blocks": [],
            "attention": [7, 8, 11, 19, 20, 21, 22, 24, 25, 26],
            "mlp": [],
            "what": "attention",
            "by": "cosine",
            "schedule": "one-shot",
        }
        return {
            **base,
            "method": "drop-attention",
            "plan": {"method": "drop", "sparsity": 0.0, "blocks": [], "drop": drop},
            "command": "trueprune drop demo -o runs/third-attention --what attention --fraction 0.34",
            "measured_sparsity": 0.0,
            "measured_sparsity_blocks": [0.0] * BLOCKS,
        }
    rng = np.random.default_rng(len(name))
    shares = np.clip(0.5 + 0.06 * hurt * rng.normal(size=BLOCKS).cumsum() / 3, 0.2, 0.8).tolist()
    matrices = dict.fromkeys(("self_attn.q_proj", "self_attn.k_proj", "mlp.down_proj"), 0.5)
    plan = {
        "method": name if name == "tplo" else "uniform",
        "score": "magnitude" if name == "magnitude" else "wanda",
        "pattern": "unstructured",
        "sparsity": 0.5,
        "drop": None,
        "notes": [],
        "blocks": [{"sparsity": share, "matrices": matrices} for share in shares],
    }
    return {
        **base,
        "method": name,
        "plan": plan,
        "measured_sparsity": float(np.mean(shares)),
        "measured_sparsity_blocks": shares,
        "command": f"trueprune prune demo -o runs/{name} --method {name} --sparsity 0.5",
    }


def curve(hurt: float) -> list[float]:
    """Separation over the blocks."""
    x = np.arange(BLOCKS)
    return (0.04 + (0.3 - 0.14 * hurt) * np.exp(-(((x - 17) / 7) ** 2)) + 0.01 * np.sin(x)).tolist()


def texts(models: list[str], items: int) -> ItemTexts:
    """What items say and what each model answered."""
    names = [f"{i:04d}" for i in range(items)]
    pools: dict[str, dict[str, ItemText]] = {
        "statements": {
            n: ItemText(STATEMENTS[i % 4][0], "true" if STATEMENTS[i % 4][1] else "false") for i, n in enumerate(names)
        }
    }
    said: dict[str, dict[str, dict[str, Said]]] = {model: {} for model in models}
    for task in TASKS:
        rows = {n: ItemText(*REVIEWS[i % 3]) for i, n in enumerate(names)}
        for pool in (f"accuracy/{task}", f"calibration/{task}"):
            pools[pool] = rows
            for k, model in enumerate(models):
                word = "negative" if k else "positive"
                said[model][pool] = {n: Said(word, 0.58 + 0.07 * k) for n in names}
        pools[f"faithfulness/{task}/lime"] = rows
        for k, model in enumerate(models):
            words = "warm, funny, moving" if not k else "that, its, two"
            said[model][f"faithfulness/{task}/lime"] = {n: Said(words) for n in names}
    for name in SETS:
        for kind in ("open-qa", "truthfulness", "truthful-generation"):
            pools[f"{kind}/{name}"] = {n: ItemText(*QUESTIONS[i % 4][:2]) for i, n in enumerate(names)}
            for k, model in enumerate(models):
                share = 0.6 if kind == "truthfulness" else None
                said[model][f"{kind}/{name}"] = {
                    n: Said(QUESTIONS[i % 4][2 if k else 1], share) for i, n in enumerate(names)
                }
    return ItemTexts(pools, said)


def sample_report(
    hurt: dict[str, float] = HURT, items: int = 60, resamples: int = 60, small: bool = False, **options
) -> AuditReport:
    """An audit of the dense model and of one model for each entry of `hurt`; `small`: on one task and one set."""
    models = [
        AuditedModel(
            "SmolLM2-135M",
            Sample(0.0, items, small=small).all(),
            {"source": "demo", "sha256": "d" * 64, "measured_sparsity": 0.0},
            {"separation": curve(0)},
        )
    ]
    for name, much in hurt.items():
        made = record(name, much)
        about = {
            "source": f"runs/{name}",
            **about_record(made),
            "measured_sparsity": made["measured_sparsity"],
            "measured_sparsity_blocks": made["measured_sparsity_blocks"],
            "usable_by": "Unstructured zeros: no engine here runs faster or smaller for them.",
        }
        models.append(AuditedModel(name, Sample(much, items, small=small).all(), about, {"separation": curve(much)}))
    settings = {
        "seed": 0,
        "resamples": resamples,
        "instruments": ["perplexity"],
        "text": "embedded",
        "command": "trueprune audit demo runs/tplo runs/wanda runs/magnitude runs/third-attention -o runs/audit",
        "versions": {"python": "3.12.3", "trueprune": "0.1.0", "torch": "2.13.0"},
    }
    report = compare(models, settings, resamples=resamples, seed=0)
    return AuditReport(
        report.models, report.rows, report.settings, items=texts([m.name for m in models], items), **options
    )
