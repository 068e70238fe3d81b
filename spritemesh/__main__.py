import sys

from spritemesh.cli import main

sys.exit(main())
