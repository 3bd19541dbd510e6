"""Limbeck distils data and rewards from a large language model into a small one."""

from importlib.metadata import version

__version__ = version("limbeck")
