"""Training with DeepSpeed: `sft`, `reward` and `ppo`; the only importer of deepspeed, trl and peft."""
