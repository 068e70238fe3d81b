import sys

from manager.demo.cli import main

sys.exit(main())
