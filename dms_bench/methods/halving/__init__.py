"""Successive halving over what other methods propose."""
