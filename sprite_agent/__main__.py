import sys

from sprite_agent.cli import main

sys.exit(main())
