"""Pruning methods that were made for language models; they prune any network of the space."""
