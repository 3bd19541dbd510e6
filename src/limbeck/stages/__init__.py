"""The nine stages: one module, one `run` function each."""
