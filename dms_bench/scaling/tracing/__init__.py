"""How a search space is found: labels travel through one forward pass."""
