"""What tasks share: a training loop, and how data and seeds are divided."""
