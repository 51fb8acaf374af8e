"""``python -m fastrnn`` is the command line `fastrnn`."""

from fastrnn.cli import main

if __name__ == "__main__":
    main()
