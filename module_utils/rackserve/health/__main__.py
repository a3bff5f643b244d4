"""python3 -m rackserve.health"""

import sys

from .program import main

sys.exit(main())
