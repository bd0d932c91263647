"""From the tables that were read to one `Config`: here the file's words meet the model's.

Nothing is judged: a blank where a value could not be read goes in as it is, so that `checks` can look at the rest.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gateway.announcements import Shape, Webhook
from gateway.config.reader import Table
from gateway.config.regimes import OURS, regimes_in
from gateway.config.values import (
    Config,
    ConsoleConfig,
    DkimDomain,
    DkimSelector,
    DnsConfig,
    FeedbackConfig,
    SiteConfig,
    SubmissionConfig,
    TlsFiles,
)
from gateway.law import Law
from gateway.model import (
    Company,
    FooterTemplate,
    RetrySchedule,
    Smarthost,
    Stream,
    Topic,
    Tracking,
    Treatment,
)
from gateway.providers import PROVIDERS
from gateway.retention import Retention


def assembled(path: Path, read: Table) -> Config:
    """Build the configuration out of what `Reader.read` returned."""
    return Config(
        path=path,
        hostname=read["hostname"],
        workers=read["workers"],
        data_dir=read["data_dir"],
        database=read["database"] or f"sqlite:{read['data_dir']}/assent.db",
        company=_company(read),
        submission=_submission(read["submission"]),
        smarthosts={name: _smarthost(name, table) for name, table in read["smarthosts"].items()},
        feedback=FeedbackConfig(**read["feedback"]) if read["feedback"] else None,
        site=_site(read["site"]) if read["site"] else None,
        console=ConsoleConfig(read["console"]["listen"], read["console"]["password_file"]) if read["console"] else None,
        dkim={name: _dkim(name, table) for name, table in read["dkim"].items()},
        dns=DnsConfig(**read["dns"]),
        topics={slug: Topic(slug=slug, **table) for slug, table in read["topics"].items()},
        streams={name: _stream(name, table) for name, table in read["streams"].items()},
        law=_law(read["consent"]),
        retention=_retention(read["retention"]),
        ask_again=read["consent"]["ask_again"],
        block_related=frozenset(one for name in read["consent"]["block_related"] for one in PROVIDERS[name].domains),
        webhooks={name: _webhook(name, table) for name, table in read["webhooks"].items()},
    )


def _company(read: Table) -> Company:
    """Unless the file says which hosts are the company's, they are those that sign its mail; the site's always is."""
    table = dict(read["company"])
    footer, closed = _footer(table), table.pop("list_post") == "no"
    own = [name for domain in read["dkim"] for name in (domain, f"*.{domain}")]
    site = urlsplit(read["site"]["public_url"]).hostname if read["site"] else None
    table["hosts"] = tuple(table["hosts"] or own)
    company = Company(**table, footer=footer, refuses_posts=closed)
    return replace(company, hosts=(*company.hosts, site)) if site and not company.owns(site) else company


def _footer(table: dict[str, Any]) -> FooterTemplate | None:
    """Take an operator's own footers out of a table."""
    text, page = table.pop("footer_text"), table.pop("footer_html")
    return FooterTemplate(text, page) if text or page else None


def _law(table: Table) -> Law:
    return Law(
        regimes=(*regimes_in(OURS), *table["rules"]),
        require=table["require"],
        markets=table["markets"],
        policy_accepted_in=frozenset(table["policy_accepted_in"]),
        corporate_in=frozenset(table["corporate_in"]),
        free_accounts=table["free_account_is_sale"],
    )


def _retention(table: Table) -> Retention:
    return Retention(table["decisions"], table["evidence"], table["evidence_ip"], table["backups"])


def _submission(table: Table) -> SubmissionConfig:
    return SubmissionConfig(
        listen=table["listen"],
        listen_tls=table["listen_tls"],
        tls=_tls(table),
        plaintext_from=table["plaintext_from"],
        proxy_from=table["proxy_from"],
        max_message_size=table["max_message_size"],
        max_recipients=table["max_recipients"],
        max_hops=table["max_hops"],
        timeout=table["timeout"],
        connections_per_address=table["connections_per_address"],
        connection_rate=table["connection_rate"],
        message_rate=table["message_rate"],
    )


def _site(table: Table) -> SiteConfig:
    return SiteConfig(table["listen"], table["public_url"], _tls(table), table["trusted_proxies"])


def _tls(table: Table) -> TlsFiles | None:
    certificate, key = table["tls_certificate"], table["tls_key"]
    return TlsFiles(certificate, key) if certificate and key else None


def _smarthost(name: str, table: Table) -> Smarthost:
    return Smarthost(
        name=name,
        urls=table["urls"],
        username=table["username"],
        password=table["password_file"],
        processor=table["processor"],
        authorities=table["tls_authorities"],
        connections=table["connections"],
        rate=table["rate"],
        messages_per_connection=table["messages_per_connection"],
        schedule=RetrySchedule(table["retry"], table["give_up_after"], table["warn_after"]),
    )


def _dkim(name: str, table: Table) -> DkimDomain:
    selectors = tuple(DkimSelector(**one) for one in table["selectors"])
    return DkimDomain(name, selectors, table["identity"], table["also_sign"])


def _stream(name: str, table: Table) -> Stream:
    return Stream(
        name=name,
        message_class=table["class"],
        topics=table["topics"],
        senders=table["from"],
        return_paths=table["return_paths"],
        smarthost=table["smarthost"],
        give_up_after=table["give_up_after"],
        brake=table["brake"],
        reports_refusals=table["refusals"] == "report",
        summary_after=table["summary_after"],
        product=table["product"],
        controller=table["controller"],
        is_shadow=table["mode"] == "shadow",
        until=table["until"],
        also_called=table["also_called"],
        reads_as_promotion=_treatment(table),
        needs_ends=table["claims_without_end"] == "refuse",
        tracking=Tracking(table["tracking"]),
        refuses_others=table["other_recipients"] == "refuse",
        mailto_first=table["mailto_first"],
        language=table["language"],
        footer=_footer(dict(table)),
        is_commercial=table["commercial"],
    )


def _treatment(table: Table) -> Treatment | None:
    written = table["reads_as_promotion"]
    return None if written == "by-class" else Treatment(written)


def _webhook(name: str, table: Table) -> Webhook:
    return Webhook(
        name=name,
        url=table["url"],
        secret=table["secret_file"],
        happenings=frozenset(table["events"]),
        streams=table["streams"],
        logins=table["logins"],
        shape=Shape(table["format"]),
        retry=table["retry"],
        authorities=table["tls_authorities"],
    )
