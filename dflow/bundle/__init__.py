"""The failure bundle: what is known of a run that failed, in one directory, and who reads it.

`contents` makes files of what was gathered, `keeper` adds what only a process can know and writes
them (`folder`), `doctor` reads a bundle and says what it means. The decision when to gather, and
from whom, is `dflow.broker.gathering`.
"""
