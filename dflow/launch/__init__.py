"""How the processes of a run come to be and how all of them go.

`local` (user process) executes `agent`, which loads the user's code (`preload`, `ship`) and
starts the coordinator and the workers (`children`; `spawned` where fork is not wanted).
They talk over private pipes (`protocol`, `pipe`); `stdio`, `rundir` and `linux` hide one
decision each.
"""
