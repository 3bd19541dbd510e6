"""`limbeck plan`: what a run will take, before anything of it runs."""

from pathlib import Path
from typing import Annotated

import typer

from limbeck.cli.runs import Pipeline
from limbeck.cli.terminal import one_line_errors


def plan(
    run_file: Annotated[Path, typer.Argument(help="YAML of the pipeline's parameters; see `limbeck init`.")],
    pipeline: Pipeline = "distill",
    gpu: Annotated[
        str,
        typer.Option(
            help="The kind of GPU: H100, H200, A100-80GB, A100-40GB, L40S, L4.",
            show_default="report.gpu of the run file",
        ),
    ] = "",
    prompts: Annotated[int | None, typer.Option(min=1, help="Prompts; else the data set is counted.")] = None,
    heldout: Annotated[int | None, typer.Option(min=0, help="Held-out prompts; else counted.")] = None,
    prompt_tokens: Annotated[
        float | None, typer.Option(min=1, help="Mean tokens of a prompt, template in it.")
    ] = None,
    completion_tokens: Annotated[
        float | None, typer.Option(min=1, help="Mean tokens of a completion.")
    ] = None,
    completion_share: Annotated[
        float, typer.Option(min=0.01, max=1, help="Else this share of each max_tokens; a guess.")
    ] = 0.5,
    accepted_share: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share of the teacher's completions that SFT learns from; a guess."),
    ] = 0.5,
    teacher: Annotated[
        str, typer.Option(metavar="DIR", help="Folder with the teacher's config.json, if not there.")
    ] = "",
    student: Annotated[str, typer.Option(metavar="DIR", help="The same of the student.")] = "",
    rates: Annotated[
        Path | None, typer.Option(help="Your rates of GPUs instead of the published ones.")
    ] = None,
    prices: Annotated[Path | None, typer.Option(help="YAML with what you pay; see docs/plan.md.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="For machines, and for `limbeck report --plan`.")
    ] = False,
) -> None:
    """Say what a run will take: tokens, FLOPs, GPU memory, hours, stored bytes, money; nothing is started.

    Of a model its config.json alone is read. The exit code is 2 when something surely fails, as of preflight.
    """
    with one_line_errors():
        from limbeck.compiled import find, load
        from limbeck.errors import ConfigError
        from limbeck.planning.asked import Given
        from limbeck.planning.making import Wish, make_plan
        from limbeck.planning.rates import load_prices, load_rates
        from limbeck.planning.text import text
        from limbeck.run_file import load_run_file

        given = Given(prompts, heldout, prompt_tokens, completion_tokens, completion_share, accepted_share)
        folders = {name: path for name, path in (("teacher", teacher), ("student", student)) if path}
        wish = Wish(load_rates(rates), given, gpu, load_prices(prices) if prices else None, folders)
        made = make_plan(load_run_file(run_file), load(find(pipeline)), wish)
        typer.echo(made.model_dump_json(indent=1) if as_json else text(made))
        errors = sum(finding.severity == "error" for finding in made.findings)
        if errors:
            raise ConfigError(
                f"the plan found {errors} error{'s' * (errors > 1)}",
                where=str(run_file),
                remedy="Each is said with the plan, with its remedy; nothing was started",
            )
