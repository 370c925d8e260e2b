"""`python -m pipeline`: the program from a checkout."""

import sys

from pipeline.cli.main import main

sys.exit(main())
