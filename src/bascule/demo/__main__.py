"""``python -m bascule.demo``."""

import sys

from bascule.demo import main

sys.exit(main())
