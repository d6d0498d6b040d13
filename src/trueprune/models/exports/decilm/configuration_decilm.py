"""Configuration of a Llama whose blocks may lack attention or MLP, in the layout `nemotron-nas`.

Written by trueprune. Each entry of `block_configs` describes one block: `attention` and `ffn`, each with `no_op`.
"""

from transformers import LlamaConfig


class Fields(dict):
    """A dictionary whose entries are attributes too: engines read attributes, JSON writes entries."""

    def __getattr__(self, name):
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class DeciLMConfig(LlamaConfig):
    """A Llama's configuration with one `block_configs` entry for each block."""

    model_type = "nemotron-nas"

    def __init__(self, block_configs=None, **kwargs):
        super().__init__(**kwargs)
        self.block_configs = [
            Fields((name, Fields(part)) for name, part in block.items()) for block in block_configs or []
        ]
        rope = getattr(self, "rope_parameters", None)
        if rope:
            # Engines look for it here, where transformers before 5.0 kept it.
            self.rope_theta = rope["rope_theta"]


def ffn_width(ffn, hidden_size):
    """The intermediate size of an MLP: as given, or 2/3 of `ffn_mult` hidden sizes, rounded up to a multiple of 256."""
    if ffn.get("intermediate_size") is not None:
        return ffn["intermediate_size"]
    return -(-int(2 * ffn["ffn_mult"] * hidden_size / 3) // 256) * 256
