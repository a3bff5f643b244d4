import sys

from rackserve.health.program import main

sys.exit(main())
