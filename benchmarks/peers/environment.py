"""The peers' own virtual environment, and what the machine and the versions are.

Requirements are installed all at once; if that fails, one by one, so that a peer that cannot be
installed here costs its own row only.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__ = ["ROOT", "commit", "install", "machine", "versions"]

ROOT = Path(__file__).parents[2]
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
INSTALL_LIMIT_S = 900


def install(venv: Path) -> tuple[Path, dict[str, str]]:
    """Return the environment's interpreter, and why which distribution is not installed."""
    python = venv / "bin" / "python"
    stamp = venv / "requirements"
    wanted = f"{REQUIREMENTS.read_text(encoding='utf-8')}{sys.version}"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return python, {}
    print(f"installing the peers into {venv}", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], check=True)
    if _pip(python, ["-r", str(REQUIREMENTS)]) is None:
        stamp.write_text(wanted, encoding="utf-8")
        return python, {}
    failed = {}
    for line in REQUIREMENTS.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#") and (reason := _pip(python, [line])) is not None:
            failed[line.partition("==")[0]] = f"not installed: {reason}"
    return python, failed


def _pip(python: Path, what: list[str]) -> str | None:
    """Install something; return pip's last line if it failed."""
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *what]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=INSTALL_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"took longer than {INSTALL_LIMIT_S} s"
    lines = done.stderr.strip().splitlines() or [f"pip ended with {done.returncode}"]
    return None if done.returncode == 0 else lines[-1]


def versions(python: Path, packages: list[str]) -> dict[str, str]:
    """Return the versions of those ``packages`` that an interpreter has."""
    code = (
        "import importlib.metadata as m, json, sys\n"
        "have = {d.metadata['Name'].lower(): d.version for d in m.distributions()}\n"
        "print(json.dumps({p: have[p] for p in sys.argv[1:] if p in have}))"
    )
    done = subprocess.run(
        [str(python), "-c", code, *packages], capture_output=True, text=True, check=False
    )
    found: dict[str, str] = json.loads(done.stdout) if done.returncode == 0 else {}
    return found


def machine() -> dict[str, Any]:
    """Return what figures depend on, besides versions."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "kernel": platform.release().partition("-")[0],
        "system": platform.system(),
        "python": platform.python_version(),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def commit() -> str:
    """Return the commit of this checkout, marked if it has changes; empty outside of one."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude=*"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip()
