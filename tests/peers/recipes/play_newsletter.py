"""Be a small Django project with django-newsletter on the settings.py in the current folder, and send one newsletter.

    python play_newsletter.py READER …

The answer: {"is_sent": whether the tool counts its submission as sent, "logged": what it has logged as errors}.
"""

import json
import logging
import os
import sys

sys.path.insert(0, os.getcwd())

import settings
from django.conf import settings as project

LINES: list[str] = []


class Keep(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        LINES.append(record.getMessage())


project.configure(
    **{name: value for name, value in vars(settings).items() if name.isupper()},
    INSTALLED_APPS=[
        *("django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sites"),
        *("django.contrib.messages", "sorl.thumbnail", "newsletter"),
    ],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}],
    ROOT_URLCONF=__name__,
    SECRET_KEY="a test's",
    SITE_ID=1,
    USE_TZ=True,
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    NEWSLETTER_THUMBNAIL="sorl-thumbnail",
)

import django  # noqa: E402

django.setup()

from django.core.management import call_command  # noqa: E402
from django.urls import include, path  # noqa: E402
from newsletter.models import Article, Message, Newsletter, Submission, Subscription  # noqa: E402

urlpatterns = [path("newsletter/", include("newsletter.urls"))]

logging.getLogger("newsletter").addHandler(Keep(logging.ERROR))
call_command("migrate", verbosity=0)
news = Newsletter.objects.create(title="News", slug="news", email="letters@news.example.com", sender="Example Letters")
news.site.set([1])
for reader in sys.argv[1:]:
    Subscription.objects.create(newsletter=news, email_field=reader, name_field="Reader", subscribed=True)
message = Message.objects.create(title="Spring news", slug="spring", newsletter=news)
Article.objects.create(post=message, title="Tables", text="<p>Hello!</p>", sortorder=1)
submission = Submission.from_message(message)
submission.prepared = True
submission.save()
call_command("submit_newsletter", verbosity=0)
submission.refresh_from_db()
print(json.dumps({"is_sent": submission.sent, "logged": LINES}))
