"""What a message's words say of its purpose: the signals and their samples, the law's tests, what may hide a word."""

from __future__ import annotations

import time
from base64 import b64encode

import pytest

from gateway.headers import split
from gateway.model import Advertising
from gateway.promotion import Reading, crowded_sender, read, unended_claim
from gateway.promotion.signals import Kind, Signal, our_signals, words_of

RECEIPT = "Thank you for your order. Your order #4711 has been shipped.\n\nTotal: 10.00\n"
OFFER = "Save 20% on our new collection. Shop now!\n"
RESET = "Reset your password with this link: https://example.com/r/1\n\nIf you did not request this, do nothing.\n"
LANGUAGES = {"en", "de", "fr", "es", "it", "nl"}


def mail(body: str | bytes, subject: str = "Hello", kind: str = "text/plain", *fields: str) -> bytes:
    head = [f"Subject: {subject}", f"Content-Type: {kind}; charset=utf-8", *fields]
    octets = body.encode() if isinstance(body, str) else body
    return "".join(f"{one}\r\n" for one in head).encode() + b"\r\n" + octets.replace(b"\n", b"\r\n")


def reading(*given: str | bytes) -> Reading:
    message = given[0] if len(given) == 1 and isinstance(given[0], bytes) else mail(*given)  # type: ignore[arg-type]
    return read(message, split(message))


# the data


@pytest.mark.parametrize("signal", our_signals().all, ids=lambda one: one.id)
def test_each_signal_is_found_in_its_sample(signal: Signal) -> None:
    assert signal.id in {one.signal.id for one in our_signals().find(words_of(signal.sample))}


def test_the_signals_speak_six_languages() -> None:
    for kind in (Kind.OFFER, Kind.LIST, Kind.SURVEY, Kind.TRANSACTION):
        spoken = {one.id.rpartition("/")[2] for one in our_signals().all if one.kind is kind}
        assert spoken == LANGUAGES, kind


def test_no_signal_can_be_told_for_another() -> None:
    ids = [one.id for one in our_signals().all]
    assert len(ids) == len(set(ids))


# the primary purpose (16 CFR 316.3)


@pytest.mark.req("CLS-03")
@pytest.mark.parametrize(
    ("body", "subject", "is_promotion"),
    [
        (RECEIPT + OFFER, "Your receipt", False),
        (OFFER + RECEIPT, "Your receipt", True),
        (RECEIPT, "20% off with your receipt", True),
        (RECEIPT, "Your receipt", False),
        (OFFER, "Hello", True),
        (RESET, "Your password", False),
    ],
)
def test_the_subject_or_the_beginning_of_the_body_makes_a_message_promotion(
    body: str, subject: str, is_promotion: bool
) -> None:
    assert bool(reading(body, subject).primary) == is_promotion


@pytest.mark.parametrize(
    "offer",
    [
        "Jetzt 20 % Rabatt sichern: jetzt bestellen!",
        "Profitez de 20 % de réduction, commandez maintenant.",
        "20 % de descuento en todo. ¡Compra ahora!",
        "Sconto del 20 % su tutto, acquista ora.",
        "Nu 20% korting op alles. Bestel nu!",
    ],
)
def test_offers_are_read_in_other_languages(offer: str) -> None:
    assert reading(offer).primary
    assert reading("Hello", offer).primary


@pytest.mark.parametrize(
    ("subject", "body"),
    [
        ("Ihr Warenkorb wartet auf Sie", "Sie haben noch Artikel im Warenkorb. Sparen Sie sich die Versandkosten."),
        ("Votre panier vous attend", "Vous avez oublié quelque chose."),
        ("Votre bon d'achat vous attend", "Pour vous remercier, nous vous offrons un bon d'achat de 10 €."),
        ("Tu vale te espera", "Te regalamos un vale de 10 € para tu próxima compra."),
        ("Tu carrito te espera", "Has dejado artículos en tu carrito."),
        ("Il tuo buono ti aspetta", "Ti regaliamo un buono di 10 € per il prossimo acquisto."),
        ("Je winkelwagen wacht", "Je hebt nog artikelen in je winkelwagen."),
    ],
)
def test_carts_and_vouchers_are_read_in_other_languages(subject: str, body: str) -> None:
    assert reading(body, subject).primary


@pytest.mark.req("LAW-DE-02", "CLS-14")
@pytest.mark.parametrize(
    ("subject", "body"),
    [
        ("Wichtiges Sicherheitsupdate", "Wir haben eine Sicherheitslücke geschlossen. Das Update ist kostenlos."),
        (
            "Rückruf: Netzteil XY",
            "Wir rufen das Netzteil zurück. Sie erhalten kostenlos Ersatz.",
        ),
        ("Rappel de produit", "Nous rappelons le chargeur. Vous recevrez gratuitement un remplacement."),
        ("Retirada de producto", "Retiramos el cargador. Recibirás gratis un recambio o un reembolso."),
        ("Richiamo del prodotto", "Richiamiamo il caricabatterie. Riceverai gratis un ricambio."),
        ("Terugroepactie", "We roepen de oplader terug. Je krijgt gratis vervanging of je geld terug."),
        ("Votre commande", "Votre commande est en route. Total : 49,00 €, livraison gratuite."),
    ],
)
def test_what_a_buyer_is_owed_for_nothing_is_no_promotion_by_anybodys_rules(subject: str, body: str) -> None:
    assert reading(body, subject).any is None


def test_the_finding_names_its_signals_and_their_version() -> None:
    found = reading(OFFER, "Hello").primary
    assert found and found.signs[0] == "discount/en" and found.rules == our_signals().version
    assert reading(OFFER, "Hello") == reading(OFFER, "Hello")


@pytest.mark.parametrize(
    ("subject", "body"),
    [
        ("[repo] Fix it", "@ann commented on this pull request.\nYou are receiving this because you are subscribed.\n"),
        ("Issue updated", "Bob updated Issue #12. View in Tracker. Manage your email preferences. Unsubscribe"),
        ("Your sign-in code", "Use this code to sign in: 123456. It expires in 10 minutes."),
        ("Use code 123456 to log in", "123456"),
        ("Payment", "We charged your card $20.00. All rights reserved. Privacy policy. Unsubscribe"),
        ("Your plan", "Dear customer, your subscription will renew for $20. Manage subscription. VAT 20% 3.00"),
        ("Votre facture", "Bonjour, votre facture est disponible. TVA 20 % : 3,00 EUR"),
        ("A reply", "Ann replied to your post. View the topic online. Unsubscribe. Manage email preferences."),
        ("Welcome", "Welcome! Your account has been created. Get started. Learn more. Join us."),
        ("Confirm", "Thank you for signing up. Please confirm your subscription to our newsletter."),
        ("Ihr Passwort", "Sie haben ein neues Passwort angefordert. Klicken Sie auf den folgenden Link."),
    ],
)
def test_what_reaches_everybodys_mailbox_for_a_reason_is_no_promotion(subject: str, body: str) -> None:
    assert reading(body, subject).primary is None


@pytest.mark.parametrize(
    ("subject", "body"),
    [
        ("Introducing our new app", "We're excited to announce our new app. Learn more. Unsubscribe"),
        ("Your October newsletter", "Here is what happened this month. Read more."),
        ("You left something behind", "Your cart is waiting. Complete your purchase now."),
        ("F\u00fcr Sie", "Entdecken Sie unsere neue Kollektion. Jetzt shoppen. Newsletter abbestellen."),
    ],
)
def test_what_sells_without_a_discount_is_promotion(subject: str, body: str) -> None:
    assert reading(body, subject).primary


# stricter rules


@pytest.mark.req("CLS-04")
def test_one_promotional_paragraph_is_one_of_its_purposes() -> None:
    mixed = reading(RECEIPT + OFFER, "Your receipt")
    assert mixed.under(Advertising.PRIMARY, surveys=False) is None
    assert mixed.under(Advertising.ANY, surveys=False)
    assert reading(RECEIPT, "Your receipt").under(Advertising.ANY, surveys=True) is None


@pytest.mark.req("CLS-05")
def test_a_logo_is_not_significant_and_renew_now_and_save_is() -> None:
    branded = '<img src="logo.png" alt="Example: software for everyone"><p>Your order #1 has been shipped.</p>'
    assert reading(branded, "Your order", "text/html").under(Advertising.SIGNIFICANT, surveys=False) is None
    pushed = branded + "<p>Renew now and save! Special offer, ends soon.</p>"
    assert reading(pushed, "Your order", "text/html").under(Advertising.SIGNIFICANT, surveys=False)


@pytest.mark.req("LAW-DE-02")
def test_a_survey_is_promotion_where_surveys_are() -> None:
    survey = reading(RECEIPT + "How did we do? Take our short survey.\n", "Your order")
    assert survey.under(Advertising.PRIMARY, surveys=False) is None
    assert survey.under(Advertising.ANY, surveys=True)


@pytest.mark.parametrize(
    ("line", "advertising", "surveys"),
    [
        ("Renew now and save.", Advertising.SIGNIFICANT, False),
        ("You might also like our bags.", Advertising.ANY, False),
        ("P.S. 10% off your next order with SPRING10.", Advertising.ANY, False),
        ("\u00dcbrigens: Unwetterwarnungen kostenlos auf Ihr Handy. Ein exklusiver Service.", Advertising.ANY, True),
        ("Bitte nehmen Sie an unserer Kundenzufriedenheitsumfrage teil.", Advertising.ANY, True),
        ("Please rate your experience.", Advertising.ANY, True),
    ],
)
def test_a_line_below_a_receipt_is_promotion_by_stricter_rules_alone(
    line: str, advertising: Advertising, surveys: bool
) -> None:
    mixed = reading(RECEIPT + line, "Your receipt")
    assert mixed.under(Advertising.PRIMARY, surveys=False) is None
    assert mixed.under(advertising, surveys)


def test_one_word_that_sells_is_enough_where_there_is_nothing_else() -> None:
    assert reading("\uff33\u200b\uff21\uff2c\uff25").primary
    assert reading("Hello", "SALE").primary


# what is seen


def wide(text: str) -> str:
    return "".join(chr(ord(one) + 0xFEE0) if "!" <= one <= "~" else one for one in text)


@pytest.mark.req("CLS-07")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("full-width", mail(wide("SALE ends today! Shop now"))),
        ("zero-width", mail("S\u200bA\u200dL\u2060E e\u00adnds today! Sh\u200bop n\ufeffow")),
        ("right-to-left marks", mail("\u202eSALE\u202c ends \u200ftoday! Shop \u2067now\u2069")),
        ("entities", mail("&#83;&#x41;&#76;E ends today! Shop&nbsp;now", "Hello", "text/html")),
        ("tags within words", mail("<b>S</b>A<i>L</i>E ends today! Sh<span>o</span>p now", "Hello", "text/html")),
        ("hidden text", mail('SA<span style="display:none">x y</span>LE ends today! Shop now', "Hi", "text/html")),
        ("comments", mail("SA<!-- x -->LE ends today! Shop n<!-- y -->ow", "Hello", "text/html")),
        ("accents", mail("S\u00c0L\u00c8 ends today! Sh\u00f3p now")),
        (
            "base64 HTML",
            mail(b64encode(b"<p>SALE ends today! Shop now"), "Hello", "text/html", "Content-Transfer-Encoding: base64"),
        ),
        (
            "unfinished base64",
            mail(
                b64encode(b"SALE ends today! Shop now! Shop now!").rstrip(b"=")[:-1],
                "Hello",
                "text/plain",
                "Content-Transfer-Encoding: base64",
            ),
        ),
        (
            "quoted-printable",
            mail(
                b"=53ALE en=\nds today! Sh=6Fp now",
                "Hello",
                "text/plain",
                "Content-Transfer-Encoding: quoted-printable",
            ),
        ),
        (
            "UTF-16",
            mail("SALE ends today! Shop now".encode("utf-16-le")).replace(b"charset=utf-8", b"charset=utf-16le"),
        ),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_what_hides_a_word_from_programs_hides_it_from_nobody_here(name: str, message: bytes) -> None:
    assert reading(message).primary, name


@pytest.mark.req("CLS-07")
def test_parts_within_parts_are_read_and_attachments_are_not() -> None:
    def nested(disposition: str) -> bytes:
        lines = [
            *("Subject: Hello", "Content-Type: multipart/mixed; boundary=a", "", "--a"),
            *("Content-Type: multipart/related; boundary=b", "", "--b"),
            *("Content-Type: multipart/alternative; boundary=c", "", "--c"),
            *("Content-Type: text/plain", "", "Hello", "--c"),
            *("Content-Type: text/html", "", "<p>See it in colour</p>", "--c--", "--b--", "--a"),
            *("Content-Type: text/plain", f"Content-Disposition: {disposition}", "", OFFER.strip(), "--a--", ""),
        ]
        return "\r\n".join(lines).encode()

    assert reading(nested("inline")).primary
    assert reading(nested("attachment")).primary is None


@pytest.mark.req("CLS-14")
def test_what_a_reply_quotes_is_not_its_writers() -> None:
    quoted = f"Your ticket is closed.\n\nOn Mon, 1 Jun 2026, Shop wrote:\n> {OFFER}\n{OFFER}"
    assert reading(mail(quoted, "Re: hello", "text/plain", "In-Reply-To: <1@example.org>")).any is None
    markup = f"<p>Your ticket is closed.</p><blockquote><p>{OFFER}</p></blockquote>"
    assert reading(mail(markup, "Re: hello", "text/html", "In-Reply-To: <1@example.org>")).any is None
    assert reading(mail(markup, "Hello", "text/html")).any, "no reply quotes anything"


@pytest.mark.req("CLS-14")
def test_the_subject_of_a_reply_is_not_its_writers() -> None:
    assert reading("Your ticket is closed.", "Re: 20% off everything").primary
    answered = mail("Your ticket is closed.", "Re: 20% off everything", "text/plain", "References: <1@example.org>")
    assert reading(answered).any is None


def test_nothing_hidden_stands_at_the_beginning() -> None:
    cloaked = f'<div style="display: none">{RECEIPT}</div><p>{OFFER}</p>'
    assert reading(cloaked, "Hello", "text/html").primary


# what costs too much


MEGABYTE = 1024 * 1024


MARKUP = ("<", "<a", "<!--", "<!-->", "<script>", "<div hidden>", "<blockquote>", "<p style='display:none'>", "</")
IN_MARKUP = (*MARKUP, '<img alt="', "&#9", "&", "shop now ", "x" * 99 + " ")
IN_TEXT = ("shop ", "your ", "on wrote ", "> ", "\u0301\u0327", "a\u0301\u0327", "\ufdfa")


@pytest.mark.parametrize(
    ("kind", "piece"), [*(("text/html", one) for one in IN_MARKUP), *(("text/plain", one) for one in IN_TEXT)]
)
def test_a_megabyte_of_anything_is_read_in_proportion(kind: str, piece: str) -> None:
    """The bar is a second of processor time; what grows with the square takes minutes, so a slow machine has leave."""
    body = (piece * (MEGABYTE // len(piece.encode())))[:MEGABYTE]
    message = mail(body, "Hello", kind, "In-Reply-To: <1@example.org>")
    begun = time.process_time()
    reading(message)
    assert time.process_time() - begun < 5.0


@pytest.mark.parametrize(
    "charset", ["punycode", "idna", "no-such", "zip", "unicode_escape", "\\0", "utf-7", "utf-8-sig"]
)
def test_a_charset_that_is_none_costs_letters_at_most(charset: str) -> None:
    message = mail("Your order #1 has been shipped" * 100).replace(b"utf-8", charset.encode())
    assert reading(message).primary is None


# what promotion must not claim


@pytest.mark.parametrize(
    ("subject", "claims"),
    [
        ("Today only: new bags", True),
        ("20% off everything", True),
        ("Nur heute: 10 % Rabatt", True),
        ("=?utf-8?q?Derni=C3=A8re_chance?=", True),
        ("Our new collection is here", False),
        ("", False),
    ],
)
def test_a_subject_whose_claim_ends_is_seen(subject: str, claims: bool) -> None:
    assert bool(unended_claim(split(mail("x", subject)))) == claims


@pytest.mark.parametrize(
    ("sender", "signs"),
    [
        ("Example Letters <letters@news.example.com>", ()),
        ("Example\u00ae <letters@news.example.com>", ()),
        ("New bags have arrived <letters@news.example.com>", ("from/subject",)),
        ('"Anna, for you" <letters@news.example.com>', ("from/recipient",)),
        ("Anna Shop <anna@anna-shop.example>", ()),
        ("\u2714 Example <letters@news.example.com>", ("from/marks",)),
        ("=?utf-8?q?=E2=AD=90_Example?= <letters@news.example.com>", ("from/marks",)),
        ("letters@news.example.com", ()),
    ],
)
def test_a_sender_who_is_more_than_a_name_is_seen(sender: str, signs: tuple[str, ...]) -> None:
    message = mail(
        "x", "New bags have arrived today", "text/plain", f"From: {sender}", "To: Anna Reader <a@example.org>"
    )
    found = crowded_sender(split(message))
    assert (found.signs if found else ()) == signs
