"""A network in a runtime of its own: opened, compared with PyTorch, timed. What budgets and exports share."""
