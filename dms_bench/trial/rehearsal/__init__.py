"""A few steps of every stage of every kind of trial: what a suite will take, and what of it will not run."""
