"""Send what an order says through the recipe in the current folder: its mail.py, under its settings.py if it has one.

    python play.py < ORDER.json

The order: [["newsletter" or "receipt", reader], …]. The answer is what the recipe's functions return, in that order.
"""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, os.getcwd())
if Path("settings.py").exists():
    os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
    import django

    django.setup()

import mail

if hasattr(mail, "app"):
    mail.app.app_context().push()  # as Flask does for each request

print(json.dumps([getattr(mail, f"send_{what}")(reader) for what, reader in json.load(sys.stdin)]))
