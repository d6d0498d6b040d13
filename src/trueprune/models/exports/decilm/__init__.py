"""The two files that a nemotron-nas checkpoint carries. They import torch and transformers alone."""
