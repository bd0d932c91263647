"""django-anymail as the judge of events in vendors' shapes: what its webhook views make of a request of ours.

The views check the vendor's own signature, or HTTP basic authentication, and raise where it is wrong.
"""

from __future__ import annotations

import base64
import warnings
from collections.abc import Mapping
from typing import Any

import django
from django.conf import settings

if not settings.configured:
    settings.configure(USE_TZ=True, SECRET_KEY="tests", ALLOWED_HOSTS=["*"], ANYMAIL={})
    django.setup()

from anymail.exceptions import AnymailWebhookValidationFailure
from anymail.webhooks import amazon_ses, mailgun, postmark, sendgrid
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from django.test import RequestFactory

Rejected = AnymailWebhookValidationFailure


class _AmazonView(amazon_ses.AmazonSESTrackingWebhookView):  # type: ignore[misc]
    """The view without boto3, which it needs only to confirm a subscription at Amazon."""

    def __init__(self, **kwargs: Any) -> None:
        self.auto_confirm_enabled = False
        super(amazon_ses.AmazonSESBaseWebhookView, self).__init__(**kwargs)


class _SendGridView(sendgrid.SendGridTrackingWebhookView):  # type: ignore[misc]
    tracking_webhook_verification_key = None


def events_of(shape: str, secret: str, body: bytes, headers: Mapping[str, str]) -> list[Any]:
    """Return the normalised events of a request; raises `Rejected` where its proof is not one of this secret."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        view = _view(shape, secret)
    given = {name: value for name, value in headers.items() if name.lower() not in ("content-type", "content-length")}
    kind = next(value for name, value in headers.items() if name.lower() == "content-type")
    request = RequestFactory().post("/", data=body, content_type=kind, headers=given)
    view.run_validators(request)
    found: list[Any] = view.parse_events(request)
    return found


def _view(shape: str, secret: str) -> Any:
    match shape:
        case "sendgrid":
            public = load_pem_private_key(secret.encode(), None).public_key()
            key = base64.b64encode(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()
            return _SendGridView(tracking_webhook_verification_key=key)
        case "mailgun":
            return mailgun.MailgunTrackingWebhookView(webhook_signing_key=secret)
        case "postmark":
            return postmark.PostmarkTrackingWebhookView(webhook_secret=secret)
        case _:
            return _AmazonView(webhook_secret=secret)
