"""`python -m paper_repro`."""

import sys

from paper_repro.cli import main

sys.exit(main())
