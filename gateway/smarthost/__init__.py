"""Mail out: what takes a finished copy to the next hop and brings back a `Reply` for each recipient.

The one rule: only a 2xx to the final dot (or a file that is on disk) means relayed; where that answer is lost the
reply is `AMBIGUOUS`, and nothing leaves in clear where TLS is required.

`conversation` is SMTP without I/O, `content` what it says after DATA, `line` the connection that carries it, `maildir`
the folder that may stand in its place, `pool` keeps connections open, fails over and backs off, `turnstile` keeps the
rate. Which copies go, when they are tried again and what a refusal means is left to delivery.
"""

from gateway.smarthost.conversation import AMBIGUOUS, Timeouts, is_our_own
from gateway.smarthost.pool import Connection, Pool, PrepareAgain
from gateway.smarthost.turnstile import Turnstile

__all__ = ["AMBIGUOUS", "Connection", "Pool", "PrepareAgain", "Timeouts", "Turnstile", "is_our_own"]
