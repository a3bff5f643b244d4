import sys

from settings.program import main

sys.exit(main())
