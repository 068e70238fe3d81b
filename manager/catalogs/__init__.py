"""Default catalogs that ship with the manager. Used when neither a flag nor the environment names a file."""

import os

_HERE = os.path.dirname(os.path.abspath(__file__))

# Contract H.1.
THRESHOLD_PROFILES = os.path.join(_HERE, "threshold-profiles.v1.json")
# Contract I.1. Every sink of it is switched off until somebody enables it in a copy.
ALERT_SINKS = os.path.join(_HERE, "alert-sinks.v1.json")
