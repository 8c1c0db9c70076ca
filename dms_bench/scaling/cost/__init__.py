"""What a network costs: MACs and parameters by what it keeps, and the counter that they are held against."""
