"""Masked and cut networks agree, or what does not is left out."""
