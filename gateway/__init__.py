"""Assent: mail that would break a promise cannot leave.

The path of a message, six rooms: `listener` takes SMTP octets from a login; `policy`, asking `classify`, gives a verdict for
each recipient; `store.spool` keeps what may go, and only then the listener says 250; `delivery` claims a copy and
asks `policy` again; `stamp`, then `sign`, make that recipient's octets; `smarthost` relays them. The way back, four rooms: a
click or a mail is read (`unsubscribe_site`, `listener.feedback`), `tokens` says whose it is, `consent` what it means,
`store.record` keeps it.

Who may import whom: `address`, `errors` and `model` only one another; `headers`, `tokens`, `consent`, `dialogue` those; `mime`
headers; `classify`, `stamp`, `sign` those, never each other; `policy` those and consent; `config` and `metrics` the model;
`store` the model, consent, tokens and ledger; `listener`, `smarthost`, `delivery`, `console` the core, the store's
interface and metrics, never each other; `service` everything; `cli` service, config and the store.
"""
