"""`python -m metarl`: the command line, where the script `metarl` is not on the path."""

import sys

from metarl.cli.main import main

sys.exit(main())
