"""What the values of a configuration must be to one another: problems, and warnings for what is lawful but odd.

Each check looks at one promise. It sees values that have been read one by one; where one could not be, a blank
stands there, and `Notes` keeps it from being blamed twice.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Iterator
from datetime import date, timedelta
from fnmatch import fnmatchcase
from itertools import combinations

from gateway.address import PATH_LIMIT
from gateway.announcements import Webhook
from gateway.announcements.signatures import fault_of
from gateway.config.footers import unsaid
from gateway.config.lines import Place
from gateway.config.names import is_loopback
from gateway.config.notes import Notes, dotted, nearest
from gateway.config.values import Config, DkimDomain, ListenAddress, TlsFiles, is_within
from gateway.model import LONGEST_SHADOW, FooterTemplate, Smarthost, Stream

RSA_ADVISED_BITS = 2048
LONGEST_BACKUPS = timedelta(days=365)

LEAST_RECIPIENTS = 100
"""A client may count on so many in one transaction (RFC 5321 §4.5.3.1.8)."""

MAILTO_DOMAIN_LIMIT = PATH_LIMIT - 50
"""A token in a local-part has 49 characters (docs/decisions/0003), and the @ one."""


def check(config: Config, notes: Notes, today: date) -> None:
    """Note everything in a configuration that does not fit together, or not any more."""
    _check_promotion(config, notes)
    _check_law(config, notes)
    _check_listeners(config, notes)
    _check_certificates(config, notes)
    _check_dkim(config, notes)
    for smarthost in config.smarthosts.values():
        _check_smarthost(smarthost, notes)
    for stream in config.streams.values():
        _check_stream(stream, config, notes)
        _check_shadow(stream, notes, today)
        _check_content(stream, notes)
    for webhook in config.webhooks.values():
        _check_webhook(webhook, config, notes)
    _check_footers(config, notes)
    _check_shared_senders(config, notes)
    _check_shared_names(config, notes)
    _check_retention(config, notes)
    _check_recipients(config, notes)
    if "default" not in config.smarthosts:
        notes.problem(("smarthosts",), "[smarthosts.default] is missing; add it, with urls", spoils=False)
    if not config.streams:
        notes.warning(("streams",), "there is no stream, so nothing can be submitted; add [streams.NAME]")


def _check_promotion(config: Config, notes: Notes) -> None:
    """A promotional message names who sends it and carries a link (15 USC 7704(a)(5), RFC 8058)."""
    names = ", ".join(stream.name for stream in config.promotional_streams)
    if not names:
        return
    if not config.company.postal_address:
        said = "company.postal_address is missing, which promotional mail must show"
        notes.problem(("company", "postal_address"), f"{said} (stream {names}); write it on one line")
    if config.site is None:
        said = "[site] is missing, and the links of promotional mail lead there"
        notes.problem(("site",), f"{said} (stream {names}); add it, with public_url")
    if config.feedback is None:
        said = "[feedback] is off: no mailto address is stamped, the https link alone unsubscribes"
        notes.warning(("feedback",), f"{said}; add [feedback] to offer both")
    elif len(config.feedback.domain) > MAILTO_DOMAIN_LIMIT:
        said = f"feedback.domain leaves no room for an unsubscribe address of {PATH_LIMIT} octets"
        notes.problem(("feedback", "domain"), f"{said}; choose one of at most {MAILTO_DOMAIN_LIMIT}")


def _check_retention(config: Config, notes: Notes) -> None:
    """Copies in backups of what has been erased go within the year that the privacy policy says (POL-22)."""
    if config.retention.backups > LONGEST_BACKUPS:
        said = "retention.backups keeps copies of what has been erased for more than a year"
        notes.warning(("retention", "backups"), f"{said}; write 365d, unless your privacy policy allows for more")


def _check_recipients(config: Config, notes: Notes) -> None:
    if config.submission and config.submission.max_recipients < LEAST_RECIPIENTS:
        said = f"submission.max_recipients is below {LEAST_RECIPIENTS}, which every mail program may count on"
        notes.warning(("submission", "max_recipients"), f"{said} (RFC 5321 §4.5.3.1.8); allow as many")


def _check_law(config: Config, notes: Notes) -> None:
    """What an operator lets count must be left to operators by the country's rules (POL-02, LAW-UK-01)."""
    law = config.law
    told = "accepting a policy is no consent to mail in {} (GDPR 7(2))"
    _check_countries("policy_accepted_in", law.policy_accepted_in, law.may_accept_policy, told, notes)
    told = "companies need an opt-in like anybody in {}"
    _check_countries("corporate_in", law.corporate_in, law.may_mail_companies, told, notes)


def _check_countries(
    key: str, countries: Iterable[str], may_count: Callable[[str], bool], told: str, notes: Notes
) -> None:
    place = ("consent", key)
    refused = sorted(one for one in countries if not may_count(one))
    if refused:
        notes.problem(place, f"{dotted(place)}: {told.format(', '.join(refused))}; remove it")


def _check_stream(stream: Stream, config: Config, notes: Notes) -> None:
    place = ("streams", stream.name)
    _check_names(stream, config, notes)
    if stream.is_promotional:
        if not stream.topics:
            said = f"{dotted(place)} is promotional and has no topic, so that all of its mail would be refused"
            notes.problem((*place, "topics"), f'{said}; write topics = ["…"]')
        _check_signed(stream, config, notes)
        if stream.is_commercial:
            said = f"{dotted(place)} is promotional, and commercial means nothing to it"
            notes.warning((*place, "commercial"), f"{said}; remove it")
    elif stream.topics:
        said = f"{dotted(place)}: topics mean nothing to mail of class {stream.message_class}"
        notes.warning((*place, "topics"), f"{said}; remove them")


def _check_footers(config: Config, notes: Notes) -> None:
    """Whatever an operator writes instead of our footer says all that ours would."""
    owners: list[tuple[Place, FooterTemplate | None]] = [(("company",), config.company.footer)]
    owners += [(("streams", one.name), one.footer) for one in config.streams.values()]
    for place, footer in owners:
        for key, texts in (("footer_text", footer.text), ("footer_html", footer.html)) if footer else ():
            lacking = dict.fromkeys(f"company.{one}" for text in texts.values() for one in unsaid(text, config.company))
            if lacking:
                said = f"{dotted((*place, key))} does not say {', '.join(lacking)}"
                notes.problem((*place, key), f"{said}, which promotional mail must; write it there", spoils=False)


def _check_shadow(stream: Stream, notes: Notes, today: date) -> None:
    """Shadow mode ends by itself, and soon: nobody forgets it (OPS-04)."""
    place = ("streams", stream.name)
    latest = today + LONGEST_SHADOW
    if not stream.is_shadow or not stream.is_promotional:
        if stream.until or stream.is_shadow:
            said = f"{dotted(place)}: without shadow mode and promotion, until and mode mean nothing"
            notes.warning((*place, "mode"), f"{said}; remove them")
    elif stream.until is None:
        said = f"{dotted(place)} is in shadow mode without an end"
        notes.problem((*place, "mode"), f"{said}; write until = {latest}, or an earlier day")
    elif stream.until > latest:
        said = f"{dotted(place)}.until = {stream.until} is more than {LONGEST_SHADOW.days} days ahead"
        notes.problem((*place, "until"), f"{said}; write {latest}, or an earlier day")
    elif stream.until < today:
        said = f"{dotted(place)}: shadow mode was over with {stream.until}, and the stream enforces"
        notes.warning((*place, "until"), f"{said}; remove mode and until")


def _check_content(stream: Stream, notes: Notes) -> None:
    """What happens to words is said of the mail that has them: a claim is promotion's, promotion essential mail's."""
    place = ("streams", stream.name)
    if stream.is_promotional and stream.reads_as_promotion:
        said = f"{dotted(place)} is promotional: reads_as_promotion means nothing to it"
        notes.warning((*place, "reads_as_promotion"), f"{said}; remove it")
    if stream.needs_ends and not stream.is_promotional:
        said = f"{dotted(place)}: claims_without_end means nothing to mail of class {stream.message_class}"
        notes.warning((*place, "claims_without_end"), f"{said}; remove it")


def _check_names(stream: Stream, config: Config, notes: Notes) -> None:
    place = ("streams", stream.name)
    for n, slug in enumerate(stream.topics):
        if slug not in config.topics:
            remedy = nearest(slug, config.topics) or f"add [topics.{slug}]"
            notes.problem((*place, "topics", n), f'{dotted(place)}: there is no topic "{slug}"; {remedy}')
    if stream.smarthost not in config.smarthosts:
        remedy = nearest(stream.smarthost, config.smarthosts) or f"add [smarthosts.{stream.smarthost}]"
        notes.problem((*place, "smarthost"), f'{dotted(place)}: there is no smarthost "{stream.smarthost}"; {remedy}')


def _check_shared_names(config: Config, notes: Notes) -> None:
    """A name from elsewhere stands for one topic or stream; else a message that gives it would name both."""
    owners = dict[str, Place]()
    named = [(("topics", one.slug), one.also_called) for one in config.topics.values()]
    named += [(("streams", one.name), one.also_called) for one in config.streams.values()]
    for place, name in ((place, name) for place, names in named for name in names):
        owner = owners.setdefault(name, place)
        if owner != place:
            said = f'{dotted(owner)} and {dotted(place)} are both called "{name}"'
            notes.problem((*place, "also_called"), f"{said}; leave it to one of them")


def _check_signed(stream: Stream, config: Config, notes: Notes) -> None:
    """One-click counts only when a signature covers it (RFC 8058 §4)."""
    domains = dict.fromkeys(sender.rpartition("@")[2] for sender in stream.senders)
    unsigned = [domain for domain in domains if config.dkim_domain_for(domain) is None]
    if unsigned:
        place = ("streams", stream.name, "from")
        remedy = f'add [dkim."{unsigned[0].removeprefix("*.")}"], or a domain above it'
        notes.problem(place, f"{dotted(place)}: no key signs mail from {', '.join(unsigned)}; {remedy}")


def _check_shared_senders(config: Config, notes: Notes) -> None:
    """Gmail asks that promotion and essential mail do not share a From address (CLS-11)."""
    essential = [stream for stream in config.streams.values() if not stream.is_promotional]
    for promotional in config.promotional_streams:
        for other in essential:
            shared = next(_overlaps(promotional.senders, other.senders), None)
            if shared:
                names = f"{promotional.name} (promotional) and {other.name} ({other.message_class})"
                said = f'streams {names} share the From address "{shared}"'
                notes.warning(("streams", promotional.name, "from"), f"{said}; give each its own")


def _overlaps(ours: Iterable[str], theirs: Iterable[str]) -> Iterator[str]:
    theirs = tuple(theirs)
    for one in ours:
        for other in theirs:
            if fnmatchcase(one, other):
                yield one
            elif fnmatchcase(other, one):
                yield other


def _check_smarthost(smarthost: Smarthost, notes: Notes) -> None:
    place = ("smarthosts", smarthost.name)
    if smarthost.username and not smarthost.password:
        notes.problem((*place, "password_file"), f"{dotted(place)} has a username and no password_file; add it")
    if smarthost.password and not smarthost.username:
        notes.problem((*place, "username"), f"{dotted(place)} has a password_file and no username; add it")
    if not smarthost.processor:
        said = f"{dotted(place)}.processor is missing: a person's export cannot say who relays"
        notes.warning((*place, "processor"), f"{said}; name the company that runs it")


def _check_webhook(webhook: Webhook, config: Config, notes: Notes) -> None:
    place = ("webhooks", webhook.name)
    fault = fault_of(webhook.shape, webhook.secret) if webhook.secret else ""
    if fault:
        said = f"{dotted(place)}.secret_file holds no secret for the format {webhook.shape}"
        notes.problem((*place, "secret_file"), f"{said}; write {fault}")
    for n, name in enumerate(webhook.streams):
        if name not in config.streams:
            remedy = nearest(name, config.streams) or f"add [streams.{name}]"
            notes.problem((*place, "streams", n), f'{dotted(place)}: there is no stream "{name}"; {remedy}')


def _check_dkim(config: Config, notes: Notes) -> None:
    for domain in config.dkim.values():
        place = ("dkim", domain.name)
        if domain.identity and not is_within(domain.identity.rpartition("@")[2], domain.name):
            said = f"{dotted(place)}.identity = {domain.identity} is not in {domain.name} (RFC 6376 §3.5)"
            notes.problem((*place, "identity"), f'{said}; write "@{domain.name}" or remove it')
        _check_selectors(domain, notes)


def _check_selectors(domain: DkimDomain, notes: Notes) -> None:
    place = ("dkim", domain.name, "selectors")
    for n, selector in enumerate(domain.selectors):
        if 0 < selector.key.rsa_bits < RSA_ADVISED_BITS:
            said = f"{selector.key.path}: RSA of {selector.key.rsa_bits} bits, where 2048 are advised (RFC 8301 §3.2)"
            notes.warning((*place, n, "key"), f"{said}; make another with `assent dkim new {domain.name}`")
        if any(selector.name == earlier.name for earlier in domain.selectors[:n]):
            notes.problem((*place, n, "name"), f'{dotted(place)}: "{selector.name}" stands twice; remove one')
    signing = [selector for selector in domain.selectors if selector.signs]
    if domain.selectors and not signing:
        said = f"{dotted(place)}: no key signs any more"
        notes.problem(place, f"{said}; take signs = false from one, or add one with `assent dkim new {domain.name}`")
    elif all(selector.key.private and not selector.key.rsa_bits for selector in signing):
        said = f"{dotted(place)}: there is no RSA key, and many receivers cannot verify Ed25519 (RFC 8463 §3)"
        notes.warning(place, f"{said}; add one with `assent dkim new {domain.name}`")


def _check_listeners(config: Config, notes: Notes) -> None:
    for (place, address), (earlier, taken) in combinations(reversed(list(_listeners(config))), 2):
        if address.collides_with(taken):
            said = f"{dotted(place)}: {address} is already taken by {taken} of {dotted(earlier)}"
            notes.problem(place, f"{said}; choose another port")


def _check_certificates(config: Config, notes: Notes) -> None:
    """TLS where it is promised; a warning where nobody could log in for want of it (SMTP-03)."""
    submission = config.submission
    _check_tls(("submission", "tls_key"), submission.tls, notes)
    if config.site is not None:
        _check_tls(("site", "tls_key"), config.site.tls, notes)
    if submission.tls or any(notes.is_spoilt(("submission", key)) for key in ("tls_certificate", "tls_key")):
        return
    if submission.listen_tls:
        said = "submission.listen_tls has no certificate to show"
        notes.problem(("submission", "listen_tls"), f"{said}; set tls_certificate and tls_key")
    outside = [str(address) for address in submission.listen if not is_loopback(address.host)]
    if outside:
        said = f"{', '.join(outside)} offers no TLS, so only the networks of plaintext_from can log in there"
        notes.warning(("submission", "listen"), f"{said}; set tls_certificate and tls_key")


def _listeners(config: Config) -> Iterator[tuple[Place, ListenAddress]]:
    sections = (("feedback", config.feedback), ("site", config.site), ("console", config.console))
    yield from ((("submission", "listen"), address) for address in config.submission.listen)
    yield from ((("submission", "listen_tls"), address) for address in config.submission.listen_tls)
    for name, section in sections:
        if section is not None:
            yield from (((name, "listen"), address) for address in section.listen)


def _check_tls(place: Place, tls: TlsFiles | None, notes: Notes) -> None:
    """An encrypted key would be asked for at the terminal; the empty password makes it an error instead."""
    if tls is None or not (tls.certificate.exists() and tls.key.exists()):
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tls.certificate, tls.key, password="")
    except (ssl.SSLError, OSError) as error:
        said = f"{dotted(place)}: {tls.certificate} and {tls.key} are not a certificate and its key in PEM"
        reason = f" ({error.reason})" if isinstance(error, ssl.SSLError) and error.reason else ""
        notes.problem(place, f"{said}{reason}; name two that belong together, the key without a passphrase")
