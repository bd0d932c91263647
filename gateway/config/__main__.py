"""`python -m gateway.config > docs/configuration.md` writes the reference of the configuration anew."""

from __future__ import annotations

import sys

from gateway.config.reference import reference

sys.stdout.write(reference())
