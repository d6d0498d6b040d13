"""Faithfulness of explanations: which words speak for a prediction, and whether removing these changes it.

The mathematics asks the model through a value function only (`value.Value`): masks of kept words to the probability of
the class that the model predicts on the full text.
"""
