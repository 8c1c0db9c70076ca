"""Causal language models with Hugging Face transformers: data, networks, training and measures."""
