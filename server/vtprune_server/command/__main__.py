"""python -m vtprune_server.command: the command `vtprune` where it is not on the path."""

import sys

from vtprune_server.command.parser import main

if __name__ == "__main__":
    sys.exit(main())
