"""The report of a run: one page for people, one JSON for machines, and the promotion decision."""
