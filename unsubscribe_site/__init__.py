"""The public site: the page behind an unsubscribe link, and the address that one-click POSTs go to.

The rule that must not be broken: GET only shows, POST changes, and 200 to a POST means that the "no" has been
committed. No cookie, no script, no redirect, no login (RFC 8058 §3.1). Tokens, the ledger and the clock belong to
others: `create_app` is given them, `start` is given sockets.

    wish.py    what a POST body asks for; pure
    pages.py   the words and the HTML that a person reads
    app.py     the routes
    throttle.py  who tries too many links that are not ours; pure
    server.py  connections, response headers and the access log
"""

from unsubscribe_site.app import PeopleStore, SiteSettings, create_app
from unsubscribe_site.server import start

__all__ = ["PeopleStore", "SiteSettings", "create_app", "start"]
