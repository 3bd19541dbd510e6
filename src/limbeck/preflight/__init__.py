"""Everything that can be checked before a GPU is asked for; all findings at once, each with its remedy.

`check` is what the pipeline's first component runs, `check_run_file` what `limbeck preflight` runs. Each
module looks at one thing: parameters (`asked`), object store (`store`), data sets (`data`), model folders
(`models`, `weights`), lengths (`context`), tokenizers (`vocabulary`) and their chat templates (`templates`),
GPUs (`gpus`, by the formulas of `memory`), the pod (`pod`), the cluster's TrainJobs (`trainjob`). No engine
is imported: the image has none.
"""

from limbeck.preflight.asked import Asked
from limbeck.preflight.checks import Outcome, check, check_run_file
from limbeck.preflight.findings import Finding, conclude

__all__ = ["Asked", "Finding", "Outcome", "check", "check_run_file", "conclude"]
