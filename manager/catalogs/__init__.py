"""Default catalogs that ship with the manager."""

import os

# Used when neither a flag nor the environment names a file (contract H.1).
THRESHOLD_PROFILES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "threshold-profiles.v1.json")
