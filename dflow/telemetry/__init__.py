"""What people see of a run while it goes on: log lines and live rates, on stderr.

Nothing here decides anything, and no part of a run waits for it.
"""
