"""What is known of modules before a trace: paths of blocks, modes, hooks, shared weights, norms, attention."""
