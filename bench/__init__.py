"""`make bench`: Assent's speed, measured beside real peers in the same run on the same machine.

The one rule: RESULTS.md is written by this program and by nothing else, and what it says of a peer (that it
gates, signs, stamps) was seen in the message that came out of it. The gateway is installed and started like the
others; only `stores` imports it, to make stores that would take its commands hours.
"""
