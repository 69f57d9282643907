"""`python -m tunemark`: the command line."""

import sys

from tunemark.cli.main import main

sys.exit(main())
