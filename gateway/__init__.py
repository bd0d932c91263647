"""Assent: mail that would break a promise cannot leave.

The path of a message, six rooms: `listener` takes SMTP octets from a login; `policy`, asking `classify`, gives a
verdict for each recipient; `store.spool` keeps what may go, and only then the listener says 250; `delivery` claims a
copy, which waits in its lane (`lanes`, `pacing`), and asks `policy` again; `stamp`, then `sign`, make that recipient's
octets (`copies` joins them); `smarthost` relays them, and `report` tells the submitter what came of it. The way back,
four rooms: a click or a mail is read (`unsubscribe_site`, `listener.feedback`), `tokens` says whose it is, `consent`
what it means, `store.people` keeps it. What has happened is told to programs: `announcements` says what, `webhooks`
tells it until it is taken.

Who may import whom is data in tests/test_architecture.py, and a test holds the modules to it: the nouns (`address`,
`errors`, `model`) know nobody, the pure core only the nouns and each other inwards, the shell the core, and only
`service` knows everything.
"""
