"""Which words of a message are marketing?

For the classes that must hold none (POL-13). The rule: only words that sell something are here, none that speak about
selling, so that a privacy policy may say "offers", "newsletter" or "advertising" as often as it has to.
"""

from __future__ import annotations

import re

_PERCENT = r"\d{1,2} ?(?:%|percent|per cent|prozent|pour cent)"
_SELLING = (
    rf"{_PERCENT} (?:off|discount|reduction|rabatt|de (?:réduction|remise|descuento)|di sconto|korting)",
    rf"(?:save|spare|sparen sie|économisez|ahorra|ahorre|risparmia|bespaar) (?:up to |bis zu |jusqu'à |hasta |fino al? "
    rf"|tot )?(?:{_PERCENT}|[$€£] ?\d+|\d+ ?[$€£])",
    r"(?:buy|order|shop|upgrade|subscribe) (?:it )?(?:now|today)",
    r"(?:buy one,? get one|free shipping|free trial|limited[- ]time offer|while (?:stocks|supplies) last)",
    r"(?:special|exclusive|introductory|black friday|cyber monday) (?:offer|deal|price|sale)s? "
    r"(?:for you|ends?|until|now|inside)",
    r"(?:sale|offer) ends|don't miss (?:out|this)|act now|(?:discount|promo|coupon|voucher) codes?:?",
    r"(?:jetzt|gleich|heute) (?:noch )?(?:kaufen|bestellen|zugreifen|sichern|upgraden)",
    r"nur (?:noch )?(?:heute|für kurze zeit|solange der vorrat reicht)|versandkostenfrei",
    r"(?:rabatt|gutschein)-?codes?:?",
    r"(?:achetez|commandez|profitez-en) (?:maintenant|vite|aujourd'hui)|livraison gratuite|codes? promo",
    r"(?:compra|compre|ordena) (?:ahora|ya|hoy)|envío gratis|código (?:promocional|de descuento)",
    r"(?:acquista|compra|ordina) (?:ora|subito|oggi)|spedizione gratuita|codice (?:sconto|promozionale)",
    r"(?:koop|bestel) nu|gratis verzending|kortingscodes?",
)
_MARKETING = re.compile(rf"(?<!\w)(?:{'|'.join(_SELLING)})(?!\w)", re.IGNORECASE)


def marketing_in(text: str) -> str:
    """Return the first words of a text that are marketing; "" for none."""
    found = _MARKETING.search(" ".join(text.replace("’", "'").split()))
    return found[0] if found else ""
