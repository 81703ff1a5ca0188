"""``python -m dflow`` is the ``dflow`` command."""

from dflow.cli import main

if __name__ == "__main__":
    main()
