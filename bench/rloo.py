"""Limbeck's RLOO beside TRL's: `python -m bench.rloo --json FILE`, with the options of `bench.ppo`."""

from bench.ppo import main

if __name__ == "__main__":
    main(("rloo",))
