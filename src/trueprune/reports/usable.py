"""Which engines can use what was removed from a model, said in a sentence."""

from __future__ import annotations

from trueprune.audits.efficiency_size import Structure

# Zeros that were there before, or that few, are no pruning.
NEGLIGIBLE = 0.005


def usable_by(dense: Structure, pruned: Structure) -> str:
    """One sentence on who runs a pruned model faster or smaller than the dense one, from what the two consist of.

    **Arguments:**

    - `dense`, `pruned`: the parts of both models.
    """
    attention = _dropped(dense, pruned, "attention")
    mlp = _dropped(dense, pruned, "mlp")
    blocks = dense.blocks - pruned.blocks
    parts = []
    if blocks > 0:
        parts.append(f"{_count(blocks, 'whole block')} fewer: any engine that runs the dense model")
    if attention or mlp:
        dropped = " and ".join(
            _count(count, f"{name} sublayer") for count, name in ((attention, "attention"), (mlp, "MLP")) if count
        )
        parts.append(
            f"{dropped} dropped: trueprune.load, transformers with the folder's code, and where trueprune export takes "
            "the model, vLLM and SGLang (nemotron-nas), mlx-lm and llama.cpp (gguf)"
        )
    if not (blocks or attention or mlp) and pruned.weights < dense.weights:
        parts.append("smaller matrices: any engine that takes their shapes from the checkpoint")
    if _share(pruned) > _share(dense) + NEGLIGIBLE:
        parts.append(_zeros(pruned))
    sentence = "; ".join(parts) or "nothing was removed that an engine could use"
    return f"{sentence[0].upper()}{sentence[1:]}."


def _dropped(dense: Structure, pruned: Structure, sublayer: str) -> int:
    """Blocks that lack a sublayer, over those that lacked it before: a block that went whole does not count."""
    before = dense.blocks - getattr(dense, sublayer)
    return max(0, pruned.blocks - getattr(pruned, sublayer) - before)


def _zeros(pruned: Structure) -> str:
    if not pruned.two_of_four:
        return "unstructured zeros: no engine here runs faster or smaller for them"
    where = "" if pruned.two_of_four == pruned.matrices else f" in {pruned.two_of_four} of {pruned.matrices} matrices"
    return (
        f"zeros in a 2:4 pattern{where}: torch's semi-structured tensors and TensorRT-LLM, on GPUs with sparse tensor "
        "cores, after a conversion"
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _share(structure: Structure) -> float:
    return structure.zeros / structure.weights
