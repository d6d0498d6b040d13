"""Gates: bounds on what pruning may change, and the verdict on a model."""
