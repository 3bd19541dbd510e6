"""What `pipelines/ablation` adds: label noise, SFT at equal compute, and the page of all rows."""
