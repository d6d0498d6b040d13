"""trueprune: prune the weights, not the truth."""
