"""All checks of the chart; the last line is "N passed, N failed".

    check.py PROGRAM        PROGRAM is the pointsman that must accept the rendered configuration
"""

import sys

import alerts
import features
import generate
import lookups
import policy
import refusals
import renders
from harness import Results

results = Results()
generate.check(results, sys.argv[1])
renders.check(results, sys.argv[1])
features.check(results)
alerts.check(results)
refusals.check(results)
lookups.check(results)
policy.check(results)
results.conclude()
