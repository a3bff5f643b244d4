import sys

from watch.program import main

sys.exit(main())
