"""What a run will take, before anything of it runs: tokens, FLOPs, memory, hours, bytes, money.

`limbeck plan` makes a `Plan` from a run file, the sizes in two config.json files and what is assumed:
`sizes` reads the models, `asked` counts prompts, `workload` counts tokens, `speed` turns them into seconds
by `rates`, `fit` compares memory (by the formulas of `limbeck.preflight.memory`) and looks for the smallest
setting that fits, `stored` counts bytes, `making` puts it together, `text` shows it, `against` compares a
plan with a report. No engine is imported, and no weight is read.
"""
