"""A run too large to try, simulated: `make simulate`, docs/simulation.md. Limbeck never imports it."""
