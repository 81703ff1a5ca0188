"""Whether a run that fails is to leave a bundle, and where: settled once, before it starts.

Every process of the run gets the same absolute directory, whatever its own working directory is.
"""

from __future__ import annotations

import os
from dataclasses import replace

from dflow.options import RunOptions

__all__ = ["VARIABLE", "settled"]

VARIABLE = "DFLOW_BUNDLE"
"""The environment variable that counts where `RunOptions.bundle` is not given."""


def settled(options: RunOptions) -> RunOptions:
    """Return ``options`` with the directory that is meant, as an absolute path."""
    wanted = options.bundle or os.environ.get(VARIABLE)
    return replace(options, bundle=os.path.abspath(wanted)) if wanted else options
