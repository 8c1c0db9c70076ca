"""What is known of modules before anything is traced: paths of blocks, modes, shared weights, norms, attention."""
