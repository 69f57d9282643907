"""`tunemark run`: measure every point of an experiment. Standard output is the result, standard error the progress."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunemark.cli.plan import experiment_arguments, experiment_from, print_plans
from tunemark.errors import BadExperiment
from tunemark.experiment import points, resolve_all
from tunemark.plugin import Catalog


def add_arguments(parser: argparse.ArgumentParser) -> None:
    experiment_arguments(parser)


def execute(args: argparse.Namespace) -> int:
    catalog = Catalog()
    experiment = experiment_from(args)
    if experiment.verify:
        raise BadExperiment(
            what="--verify cannot be done yet",
            why="comparing a strategy with one process before the measurement is not built",
            next="run without it, and compare the losses of --strategy none and the other one",
        )
    plans = resolve_all(points(experiment), catalog)
    for words in dict.fromkeys(note for plan in plans for note in plan.notes):
        _say(words)
    if experiment.dry_run:
        print_plans(plans, json=experiment.json)
        return 0

    # Heavy and not needed by --dry-run.
    from tunemark.cli.live import LiveLine
    from tunemark.launch import Ended
    from tunemark.report import exit_code, markdown_table, verdict_line, write
    from tunemark.results import Result, Store, encode
    from tunemark.sweep import Ready, Watch, make_ready, sweep, terminable, title

    store = Store(Path(experiment.store))
    store.prove_writable()
    output = Path(experiment.output) if experiment.output else None
    if output is not None:
        Store.prove_folder(output)
    line: list[LiveLine] = []

    def attempt(ready: Ready, number: int, of: int) -> None:
        spec = ready.plan.spec
        words = f"{title(ready.plan)}, attempt {number} of {of}"
        line[:] = [LiveLine(words, steps=spec.steps, warmup=spec.warmup, budget_s=spec.budget)]

    def record(row: Mapping[str, Any]) -> None:
        line[0].observe(row)

    def ended(end: Ended) -> None:
        words = f"{end.status}, ended by {end.reason}"
        line[0].close(words if end.status == "ok" else f"{words}: {end.evidence}")

    results: list[Result] = []
    interrupted = False
    watch = Watch(message=_say, attempt=attempt, record=record, ended=ended)
    ready = make_ready(plans, store, watch)
    try:
        with terminable():
            for result in sweep(
                ready,
                store,
                catalog,
                repeats=experiment.repeats,
                redo=experiment.redo,
                timeout_s=experiment.timeout,
                calibrate=not experiment.no_calibrate,
                watch=watch,
            ):
                results.append(result)
                if output is not None:
                    write(_ordered(results, [p.run_id for p in plans]), output, catalog)
    except KeyboardInterrupt:
        interrupted = True
        _say("interrupted: every finished step and run is kept; the same command goes on where this one stopped")
        known = {r.run_id for r in results}
        results += [store.result(p, catalog) for p in plans if p.run_id not in known and store.has_attempt(p.run_id)]
        if output is not None and results:
            write(_ordered(results, [p.run_id for p in plans]), output, catalog)
    results = _ordered(results, [p.run_id for p in plans])
    if experiment.json:
        for result in results:
            print(encode(result))
    elif results:
        print(markdown_table(results))
        for result in results:
            print(verdict_line(result))
    if output is not None and results:
        _say(f"the report is in {output}{'/' if not str(output).endswith('/') else ''}")
    return 130 if interrupted else exit_code(results)


def _ordered(results: Sequence[Any], run_ids: Sequence[str]) -> list[Any]:
    place = {run_id: i for i, run_id in enumerate(run_ids)}
    return sorted(results, key=lambda r: place[r.run_id])


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)
