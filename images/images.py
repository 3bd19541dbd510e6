"""Every image reference of the project. Overlays and air-gapped sites replace them here or at deployment."""

from importlib.metadata import version

TAG = version("limbeck")

TOOLS = f"limbeck/tools:{TAG}"  # CPU stages: no engine inside
GENERATE = f"limbeck/generate:{TAG}"  # vLLM
TRAIN = f"limbeck/train:{TAG}"  # DeepSpeed and TRL, and vLLM for the rollouts of ppo
