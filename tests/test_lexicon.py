"""Which words sell, and which only speak of selling."""

from __future__ import annotations

import pytest

from gateway.lexicon import marketing_in


@pytest.mark.parametrize(
    "text",
    [
        "Upgrade and save 30 % today",
        "Everything 20% off",
        "BUY\nNOW",
        "Don’t miss out!",
        "Your promo code: SPRING",
        "Jetzt noch bestellen: nur heute",
        "10 Prozent Rabatt",
        "Économisez jusqu'à 15 %",
        "Envío gratis",
        "Acquista ora",
        "Bestel nu",
    ],
)
def test_words_that_sell_are_found(text: str) -> None:
    assert marketing_in(text)


@pytest.mark.parametrize(
    "text",
    [
        "We may send you special offers and newsletters if you have asked for them.",
        "You can buy our products under these terms. Orders are kept for ten years.",
        "We share 0% of your data. 20% of requests are answered within a day.",
        "Sie können unsere Produkte kaufen. Rabatte sind keine personenbezogenen Daten.",
        "Nous n'envoyons des offres qu'avec votre accord.",
        "",
    ],
)
def test_words_about_selling_are_not(text: str) -> None:
    assert marketing_in(text) == ""
