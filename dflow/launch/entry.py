"""The only place where launch knows what the processes it starts will do."""

from __future__ import annotations

from dflow.launch.job import Seed

__all__ = ["run_coordinator", "run_worker"]


def run_coordinator(seed: Seed) -> int:
    """Be the coordinator of a run; returns the exit code."""
    from dflow.broker.main import CoordinatorConfig, run_coordinator

    return run_coordinator(
        CoordinatorConfig(
            plan=seed.plan,
            options=seed.options,
            run_id=seed.run_id,
            token=seed.token,
            endpoint=seed.endpoint,
            agent_fd=seed.agent_fd,
            with_handle=seed.with_handle,
            run_dir=seed.run_dir,
            epoch=seed.epoch,
        )
    )


def run_worker(seed: Seed) -> int:
    """Be one worker of a run; returns the exit code."""
    from dflow.worker.assemble import WorkerConfig
    from dflow.worker.main import run_worker

    return run_worker(
        WorkerConfig(
            worker=seed.worker,
            run_id=seed.run_id,
            token=seed.token,
            coordinator=seed.endpoint,
            run_dir=seed.run_dir,
            epoch=seed.epoch,
            graph=seed.graph,
            plan=seed.plan,
            options=seed.options,
        )
    )
