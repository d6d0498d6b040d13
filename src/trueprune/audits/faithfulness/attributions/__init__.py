"""Attribution methods: how much each word speaks for the class that the model predicts.

A new method is one file with a function like `base.Attribution` and one line in `registry.ATTRIBUTIONS`.
"""

from trueprune.audits.faithfulness.attributions.base import Attribution
from trueprune.audits.faithfulness.attributions.registry import ATTRIBUTIONS, attribute, check_attribution

__all__ = ["ATTRIBUTIONS", "Attribution", "attribute", "check_attribution"]
