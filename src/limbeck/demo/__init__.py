"""The demo: a task made by seed, and two tiny checkpoints that half know it."""
