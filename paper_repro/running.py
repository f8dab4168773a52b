"""Running a claim: each of its cells, seed by seed, into its folder."""

import functools
import sys
from typing import Any

from benchmarks import environment, results, runner, summaries
from benchmarks.jobs import Job, file_of
from neuroml.errors import UsageError
from neuroml.streams import sources
from paper_repro.claims import Claim


def run(claim: Claim, command: Any) -> int:
    """Runs the cells whose results are not there yet; returns the exit status."""
    environment.prepare_jax()
    if not claim.run_here():
        raise UsageError(
            f"{claim.name} runs nothing; `python -m paper_repro check {claim.name}` says why, cell by cell."
        )
    wanted = [cell for cell in claim.run_here() if cell.name.startswith(command.only or "")]
    if not wanted:
        why = [f" {c.name!r} is not run: {c.not_run}." for c in claim.cells if c.name.startswith(command.only)]
        raise UsageError(
            f"{claim.name} runs no cell whose name begins with {command.only!r}.{''.join(why)} "
            f"It runs: {', '.join(repr(cell.name) for cell in claim.run_here())}."
        )
    seeds = list(range(claim.seeds if command.seeds is None else command.seeds))
    if not seeds:
        raise UsageError(f"--seeds {command.seeds}: at least one seed is needed.")
    out, load = command.out or claim.results, functools.cache(sources.load)
    environment.check_writable(out)
    for number, cell in enumerate(wanted, 1):
        print(f"{number}/{len(wanted)} {cell.name}", file=sys.stderr)
        job = cell.job()
        path = file_of(out, job, job.suite.data)
        for _ in runner.run_job(job, load(job.suite.data, command.data_dir), seeds, path):
            pass
        summaries.write_csv(path.with_suffix(".csv"), summaries.summarize(results.latest(results.read(path))))
    return 0


def found(job: Job, out: Any) -> list[dict[str, Any]]:
    """Returns the results of a job that a folder holds."""
    path = file_of(out, job, job.suite.data)
    if not path.exists():
        return []
    identity = results.config_hash(job.config)
    return [record for record in results.latest(results.read(path)) if record["config_hash"] == identity]
