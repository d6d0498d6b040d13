"""What pruning and auditing would cost, from a model's configuration alone."""
