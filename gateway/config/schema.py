"""Every section and key of the configuration, as data.

The loader, the check for unknown keys and docs/configuration.md all read this table, so that a key which is not
here does not exist. Defaults are written as the file would write them, and are read by the same kinds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from gateway.config.dialects import ALSO_CALLED
from gateway.config.files import (
    AUTHORITIES,
    CONSOLE_PASSWORD,
    DATABASE,
    DKIM_KEY,
    FOLDER,
    RULES_FOLDER,
    SECRET,
    SECRET_TEXT,
    TLS_CERTIFICATE,
    TLS_KEY,
)
from gateway.config.footers import FOOTER
from gateway.config.kinds import (
    BRAKE,
    DAY,
    DURATION,
    FLAG,
    INTERVAL,
    INTERVALS,
    LINE,
    OPTIONAL_INTERVAL,
    PACE,
    PERIOD,
    RATE,
    SIZE,
    WORKERS,
    Kind,
    choice,
    whole_number,
)
from gateway.config.names import (
    ADDRESS,
    COUNTRIES,
    COUNTRY,
    DOMAIN,
    ENDPOINT_URL,
    HAPPENINGS,
    HOST_NAME,
    HOST_PATTERNS,
    IDENTITY,
    IP_ADDRESSES,
    LANGUAGE,
    LIST_LINK,
    LISTEN,
    LOGINS,
    MAY_LISTEN,
    MESSAGE_CLASS,
    NAME_SERVERS,
    NETWORKS,
    PROVIDER_DOMAINS,
    PUBLIC_URL,
    RETURN_PATHS,
    SELECTOR,
    SENDERS,
    SIGNED_NAMES,
    SLUG,
    SLUGS,
    SMARTHOST_URLS,
    WEB_URL,
)
from gateway.model import Treatment


class Presence(Enum):
    """What it means that a key or a section is not in the file."""

    REQUIRED = "required"
    UNSET = "not set"
    OFF = "off"


REQUIRED: Final = Presence.REQUIRED
UNSET: Final = Presence.UNSET


@dataclass(frozen=True, slots=True)
class Key:
    """One key: what it may be, what it is when it is not written (as the file would write it), what it is for."""

    name: str
    kind: Kind
    default: Any
    meaning: str


@dataclass(frozen=True, slots=True)
class Tables:
    """A key that holds an array of tables, all alike; there must be at least one."""

    name: str
    section: Section
    meaning: str


@dataclass(frozen=True, slots=True)
class Section:
    """One table of the file. `names` is what the names of its tables may be, where it has many (`[topics.NAME]`)."""

    name: str
    meaning: str
    keys: tuple[Key | Tables, ...]
    names: Kind | None = None
    absent: Presence = Presence.UNSET

    @property
    def title(self) -> str:
        """The section as a reader of the file sees it; "" for the keys before the first one."""
        return f"{self.name}.NAME" if self.names else self.name


@dataclass(frozen=True, slots=True)
class NotYet:
    """A key that this version understands but does not act on, except where its value asks for what happens anyway."""

    happens: tuple[Any, ...]
    instead: str


TOP = Section(
    "",
    "Who we are among mail servers, and where we keep things.",
    (
        Key("hostname", HOST_NAME, REQUIRED, "How we name ourselves in SMTP, in `Received:` and in message ids."),
        Key("workers", WORKERS, "auto", 'How many processes share the work; `"auto"` is one a core.'),
        Key(
            "data_dir",
            FOLDER,
            "var",
            "Where everything is kept that is not in the database: spool, keys, decision log.",
        ),
        Key(
            "database",
            DATABASE,
            UNSET,
            "People, ledger and logins: `assent.db` in `data_dir` unless told. Never on a network file system.",
        ),
    ),
)

COMPANY = Section(
    "company",
    "Who promises: footers, proof and the record of processing name it.",
    (
        Key("name", LINE, REQUIRED, "The sender's name, as the law knows it."),
        Key(
            "postal_address",
            LINE,
            UNSET,
            "Stands in every promotional message, and must be set for them (15 USC 7704).",
        ),
        Key("contact", ADDRESS, REQUIRED, "Where people write about their data; the site shows it."),
        Key("phone", LINE, UNSET, "Where people call about their data; receipts of consent name it."),
        Key("privacy_policy", WEB_URL, REQUIRED, "Where the privacy policy is; footers and the site link to it."),
        Key("region", COUNTRY, UNSET, "The country that the company is established in."),
        Key(
            "hosts",
            HOST_PATTERNS,
            [],
            "The hosts that are the company's own, as opposed to a third party's; unless told, those of `[dkim]`.",
        ),
        Key("help_url", WEB_URL, UNSET, "A page for those whose mail was refused; the refusal names it."),
        Key("language", LANGUAGE, "en", "What footers are written in for readers of whom no language is recorded."),
        Key(
            "footer_text",
            FOOTER,
            UNSET,
            "A file: your own footer for plain text; beside it, `footer.de.txt` in German.",
        ),
        Key("footer_html", FOOTER, UNSET, "The same for HTML. Each has `{{unsubscribe_url}}` where its link goes."),
        Key("list_help", LIST_LINK, UNSET, "A page or mail address about the lists, for `List-Help` (RFC 2369)."),
        Key("list_owner", LIST_LINK, UNSET, "Who keeps the lists, for `List-Owner`."),
        Key(
            "list_post",
            choice("omit", "no"),
            "omit",
            '`"no"` says that nobody may write to the lists (`List-Post: NO`).',
        ),
    ),
    absent=REQUIRED,
)

CONSENT = Section(
    "consent",
    "What counts as a person's yes.",
    (
        Key(
            "require",
            choice("express", "regime"),
            "express",
            'What promotional mail needs: `"express"`, an opt-in to the topic; `"regime"`, the country rules.',
        ),
        Key(
            "markets",
            COUNTRIES,
            [],
            "Where the company mails; people of undeclared country get the strictest of these.",
        ),
        Key(
            "policy_accepted_in",
            COUNTRIES,
            [],
            "Countries where accepting the privacy policy counts as an opt-in to the company's own topics (POL-02), of"
            " those who have declared them.",
        ),
        Key(
            "corporate_in",
            COUNTRIES,
            [],
            'Countries where an address that is recorded as a company\'s needs no opt-in (LAW-UK-01); a "no" holds.',
        ),
        Key(
            "free_account_is_sale",
            FLAG,
            False,
            "Whether an account that cost nothing is a sale (LAW-EU-04, CJEU C-654/23).",
        ),
        Key("ask_again", PERIOD, "12mo", "How long nobody is asked again for what they refused when asked (CON-12)."),
        Key(
            "block_related",
            PROVIDER_DOMAINS,
            [],
            'Providers where a "no" of one spelling of a mailbox (dots, a +tag) counts for the others too (SUP-04).',
        ),
        Key("rules", RULES_FOLDER, UNSET, "A folder of further country rules, one TOML file each, as ours are."),
    ),
)

SUBMISSION = Section(
    "submission",
    "Where logins hand in mail.",
    (
        Key(
            "listen",
            LISTEN,
            ["127.0.0.1:2525"],
            "Addresses that begin in the clear and offer STARTTLS where there is a certificate.",
        ),
        Key("listen_tls", MAY_LISTEN, [], "Addresses that speak TLS from the first octet (RFC 8314)."),
        Key("tls_certificate", TLS_CERTIFICATE, UNSET, "The certificate chain, PEM."),
        Key("tls_key", TLS_KEY, UNSET, "Its private key, PEM, mode 0600."),
        Key("plaintext_from", NETWORKS, ["127.0.0.0/8", "::1"], "Networks that may log in without TLS."),
        Key("proxy_from", NETWORKS, [], "Load balancers: their connections must begin with a PROXY header, v1 or v2."),
        Key("max_message_size", SIZE, "25MiB", "The largest message (RFC 1870)."),
        Key(
            "max_recipients",
            whole_number(1, 100_000),
            1000,
            "The most recipients of one message; a tool may count on 100 (RFC 5321 §4.5.3.1.8).",
        ),
        Key("max_hops", whole_number(5, 1000), 50, "More `Received:` fields are a mail loop (554 5.4.6)."),
        Key("timeout", INTERVAL, "5m", "How long a client may say nothing (RFC 5321 §4.5.3.2.7)."),
        Key("connections_per_address", whole_number(1, 100_000), 50, "The most open at once; of IPv6, by /64."),
        Key("connection_rate", PACE, "none", "How many connections a time one address may open; more get 421."),
        Key("message_rate", PACE, "none", "How many messages a time one login may begin; more get 450."),
    ),
)

SMARTHOSTS = Section(
    "smarthosts",
    "A next hop, which relays what may go. `[smarthosts.default]` must exist.",
    (
        Key(
            "urls",
            SMARTHOST_URLS,
            REQUIRED,
            "In order of preference; the next is tried when one is down. `smtp:` uses STARTTLS, except on loopback.",
        ),
        Key("username", LINE, UNSET, "The name to log in with."),
        Key("password_file", SECRET, UNSET, "The file, mode 0600, with the password on one line."),
        Key(
            "tls_authorities",
            AUTHORITIES,
            UNSET,
            "A PEM file of the authorities to trust instead of the system's; with it, TLS is a must on loopback too.",
        ),
        Key("processor", LINE, UNSET, "The company that runs it, as a person's export names it."),
        Key("connections", whole_number(1, 1000), 20, "The most connections at once, over all workers."),
        Key(
            "rate",
            RATE,
            "none",
            "How many recipients a time the next hop takes, over all workers, where it throttles.",
        ),
        Key("messages_per_connection", whole_number(1, 100_000), 100, "After so many, a new connection is made."),
        Key("retry", INTERVALS, ["1m", "5m", "15m", "30m", "1h"], "Waits between attempts; the last one repeats."),
        Key("warn_after", INTERVAL, "4h", "After so long, a submitter who asked for it (`NOTIFY=DELAY`) is told."),
        Key(
            "give_up_after",
            INTERVAL,
            "5d",
            "After so long a copy expires, and its submitter is told (RFC 5321 §4.5.4.1).",
        ),
    ),
    names=SLUG,
)

FEEDBACK = Section(
    "feedback",
    "Where answers come in: mail to the unsubscribe address, later bounces and complaints.",
    (
        Key("listen", LISTEN, REQUIRED, "Addresses that take mail for `domain` from anyone."),
        Key("domain", DOMAIN, REQUIRED, "The domain of return paths and unsubscribe addresses; its MX leads here."),
    ),
    absent=Presence.OFF,
)

SITE = Section(
    "site",
    "The site whose links promotional mail carries; without it there can be no promotional stream.",
    (
        Key("listen", LISTEN, ["127.0.0.1:8080"], "Addresses to serve on."),
        Key("public_url", PUBLIC_URL, REQUIRED, "What every link begins with, for ever: https, unless it is loopback."),
        Key("tls_certificate", TLS_CERTIFICATE, UNSET, "The certificate chain, PEM, where no proxy does TLS."),
        Key("tls_key", TLS_KEY, UNSET, "Its private key, PEM, mode 0600."),
        Key("subscribe", FLAG, False, "Whether people can sign up at `/subscribe`."),
        Key("rights", FLAG, False, "Whether people can ask for export and erasure at `/r`."),
        Key("trusted_proxies", NETWORKS, [], "Networks whose `X-Forwarded-For` is believed."),
    ),
    absent=Presence.OFF,
)

CONSOLE = Section(
    "console",
    "Where operators and programs look in: `/metrics`, `/healthz`, `/readyz`, the API under `/api/v1`, and pages.",
    (
        Key("listen", LISTEN, ["127.0.0.1:8081"], "Addresses to serve on; keep them inside."),
        Key(
            "password_file",
            CONSOLE_PASSWORD,
            UNSET,
            "What opens the pages under `/console`; there are none without.",
        ),
    ),
    absent=Presence.OFF,
)

SELECTORS = Section(
    "selectors",
    "One published key.",
    (
        Key("name", SELECTOR, REQUIRED, "The selector: its record is at NAME._domainkey."),
        Key(
            "key", DKIM_KEY, REQUIRED, "The private key, PEM, mode 0600: RSA of 2048 bits, or a second one of Ed25519."
        ),
        Key(
            "signs",
            FLAG,
            True,
            "`false` for a key that another one follows: its record stays published for a week (RFC 6376 §5.2).",
        ),
    ),
)

DKIM = Section(
    "dkim",
    "A domain that signs the mail of From addresses in it and below it; the longest match signs.",
    (
        Tables("selectors", SELECTORS, "The keys that sign, each with a signature of its own."),
        Key(
            "identity",
            IDENTITY,
            UNSET,
            "The `i=` tag: an address in the domain or below it; not set, the tag is left out.",
        ),
        Key(
            "also_sign",
            SIGNED_NAMES,
            [],
            "Further header fields to sign, each as often as it is listed, from the lowest one up (RFC 6376 §5.4.2).",
        ),
    ),
    names=DOMAIN,
)

DNS = Section(
    "dns",
    "Whom we ask what is published about our mail, and how often. Mail never waits for DNS.",
    (
        Key("servers", NAME_SERVERS, [], "The servers to ask; none: those of /etc/resolv.conf."),
        Key(
            "check_keys",
            INTERVAL,
            "15m",
            "How often the published DKIM keys are compared with ours; each minute while one is not as it should be.",
        ),
        Key(
            "sending_ips",
            IP_ADDRESSES,
            [],
            "Where the mail leaves to the world, for `assent check --online`; none: the smarthosts' own addresses.",
        ),
    ),
)

TOPICS = Section(
    "topics",
    "What people can opt in to and out of. Never give a topic's name a new meaning.",
    (
        Key("name", LINE, REQUIRED, "What people read: on the site, in `List-Id`."),
        Key("partner", FLAG, False, "Whether the offers are of other companies."),
        Key("families", SLUGS, [], "The product families that it is about, for the soft opt-in (ePrivacy 13(2))."),
        Key("max_age", PERIOD, UNSET, "After so long an opt-in has lapsed and must be asked for anew (CON-15)."),
        Key("also_called", ALSO_CALLED, [], "What other systems' headers call it (docs/vendor-headers.md)."),
    ),
    names=SLUG,
)

STREAMS = Section(
    "streams",
    "A kind of mail. Logins are allowed streams; what a login has not been allowed, it cannot send.",
    (
        Key("class", MESSAGE_CLASS, REQUIRED, "Why the mail exists; all but `promotional` need no topic."),
        Key("topics", SLUGS, [], "The topics of a promotional stream; its messages choose one."),
        Key("from", SENDERS, REQUIRED, "The From addresses that the stream may use."),
        Key("also_called", ALSO_CALLED, [], "What other systems' headers call it (docs/vendor-headers.md)."),
        Key("return_paths", RETURN_PATHS, [], "Reverse paths that it may use besides those in its From domains."),
        Key("smarthost", SLUG, "default", "The next hop of its mail."),
        Key("product", SLUG, UNSET, "What a product stream is about; without it each message says so (POL-04)."),
        Key("controller", LINE, UNSET, "Whose mail it is, where it is not the company's: consent names it (POL-31)."),
        Key(
            "give_up_after",
            OPTIONAL_INTERVAL,
            UNSET,
            "A shorter life for its promotional copies than the smarthost's; not set, they have the same.",
        ),
        Key(
            "refusals",
            choice("smtp", "report"),
            "smtp",
            'Told by 550, or with `"report"` answered 250, not relayed, and told by a summary to the login\'s contact.',
        ),
        Key(
            "summary_after",
            INTERVAL,
            "1h",
            "After so long without another refusal a campaign is over, and its summary is sent.",
        ),
        Key(
            "mode",
            choice("enforce", "shadow"),
            "enforce",
            '`"shadow"` relays to whoever has not said no, and records who has not opted in.',
        ),
        Key("until", DAY, UNSET, "The last day of shadow mode (UTC), at most 60 days ahead; then the stream enforces."),
        Key(
            "reads_as_promotion",
            choice("by-class", *Treatment),
            "by-class",
            "What happens to essential mail that reads as promotion: relayed and reported, held until `assent queue"
            " release`, or refused; by class, `product` is held and all else is reported (CLS-14).",
        ),
        Key(
            "claims_without_end",
            choice("report", "refuse"),
            "report",
            "What happens to promotion whose subject says today only, without `Assent-Campaign-Ends` (CLS-09).",
        ),
        Key(
            "tracking",
            choice("strip", "refuse", "allow"),
            "strip",
            "What becomes of hidden images on others' hosts; where EU or UK rules hold, of our own too (POL-16).",
        ),
        Key(
            "other_recipients",
            choice("rewrite", "refuse"),
            "rewrite",
            "What becomes of promotion whose To or Cc names others of its envelope: a copy names its one recipient, or"
            " the message is refused (UNS-32).",
        ),
        Key(
            "mailto_first", FLAG, False, "Whether `List-Unsubscribe` prefers the mailto link to the https one (UNS-05)."
        ),
        Key("language", LANGUAGE, UNSET, "What its footers are written in, where it is not the company's."),
        Key("footer_text", FOOTER, UNSET, "A footer of its own instead of the company's, for plain text."),
        Key("footer_html", FOOTER, UNSET, "The same for HTML."),
        Key(
            "commercial",
            FLAG,
            False,
            "Whether its mail, though essential, is commercial to Canada: then people there get a footer (LAW-CA-06).",
        ),
        Key(
            "brake",
            BRAKE,
            "80% of 500",
            "So many refused of a campaign's first recipients pause the stream, until `assent streams release`.",
        ),
    ),
    names=SLUG,
)

WEBHOOKS = Section(
    "webhooks",
    "A program that is told what happens, at an https endpoint: each event until it is taken (docs/webhooks.md).",
    (
        Key("url", ENDPOINT_URL, REQUIRED, "Where to POST: https, unless it is loopback. No redirect is followed."),
        Key("secret_file", SECRET_TEXT, REQUIRED, "The file, mode 0600, with what signs; `assent webhooks secret`."),
        Key(
            "events",
            HAPPENINGS,
            [
                "recipient.unsubscribed",
                "recipient.subscribed",
                "recipient.complained",
                "recipient.bounced",
                "recipient.erased",
            ],
            "What it is told.",
        ),
        Key("streams", SLUGS, [], "With some, it is told only what concerns these streams."),
        Key("logins", LOGINS, [], "With some, it is told only what concerns the mail of these logins."),
        Key(
            "format",
            choice("standard", "sendgrid", "mailgun", "postmark", "ses"),
            "standard",
            "In whose words: the Standard Webhooks specification's, or a vendor's that a tool understands already.",
        ),
        Key(
            "retry",
            INTERVALS,
            ["5s", "5m", "30m", "2h", "5h", "10h", "14h", "20h", "24h"],
            "Waits between attempts; the last one repeats.",
        ),
        Key(
            "tls_authorities",
            AUTHORITIES,
            UNSET,
            "A PEM file of the authorities to trust instead of the system's.",
        ),
    ),
    names=SLUG,
)

RETENTION = Section(
    "retention",
    "How long things are kept.",
    (
        Key("messages", DURATION, "0d", "A message's text, after its last recipient is settled."),
        Key("decisions", DURATION, "1095d", "The decision log, which names nobody."),
        Key("evidence", DURATION, "1095d", 'Proof of consent, or of a "no", after it was last of use: for claims.'),
        Key("evidence_ip", DURATION, "365d", "The IP address in proof, after that was last of use."),
        Key("backups", DURATION, "365d", "Backups: nothing of an erased person outlives this."),
    ),
)

SECTIONS: Final = (
    TOP,
    COMPANY,
    CONSENT,
    SUBMISSION,
    SMARTHOSTS,
    FEEDBACK,
    SITE,
    CONSOLE,
    DKIM,
    DNS,
    TOPICS,
    STREAMS,
    WEBHOOKS,
    RETENTION,
)

# A line goes when its behaviour comes. Whoever writes such a key is warned, and the reference says so.
NOT_YET_IN_FORCE: Final[Mapping[str, NotYet]] = {
    "site.subscribe": NotYet((False,), "/subscribe answers 404"),
    "site.rights": NotYet((False,), "/r answers 404"),
    "retention.messages": NotYet(("0d",), "a message goes when its last recipient is settled"),
}
