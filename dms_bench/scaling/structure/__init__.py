"""What a search trains: the differentiable top-k, what it stands beside, and the importance that ranks elements."""
