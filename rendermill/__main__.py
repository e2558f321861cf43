"""`python -m rendermill`: the command line."""

import sys

from rendermill.jobs.cli import main

if __name__ == "__main__":
    sys.exit(main())
