import sys

from sprite_agent.demo.cli import main

sys.exit(main(sys.argv[1:]))
