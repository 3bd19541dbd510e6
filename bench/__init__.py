"""Measurements of Limbeck, each a module to run: `python -m bench.cpu_stages`."""
