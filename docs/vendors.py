"""The page that tells a team which headers of its tool work here unchanged, from the vendors' own files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from gateway.dialects import Vendor
from gateway.dialects.rows import ANY, Header, Meaning, Rule

_OPENING: Final = """# Other systems' headers

Written by `make docs` from gateway/dialects/*.toml.

A tool that was set up for another mail system goes on writing that system's headers, and Assent reads them. They name
a message's topic, campaign and class, within what its login has (CLS-01), and are removed before it is relayed. What
one asks for is done or refused, never passed over: a message that asks for a service that is not done here is answered
`550 5.6.0 unsupported-header:` with the header's name, and so is JSON that cannot be read. Why it is so:
[decision {decision}]({page}).

**Names.** A header that names an unsubscribe group, a message stream, a list or a mail class finds the topic or stream
of that name; for a name of the vendor's own, say `also_called` in the topic or the stream:

```toml
[topics.product-announcements]
name = "Product announcements"
also_called = ["sendgrid:17", "ses:ProductNews"]

[streams.billing]
class = "account"
from = ["billing@example.com"]
also_called = ["postmark:outbound", "sendgrid:18"]
```

What stands before the colon is in each heading below. *Must exist*: a name that none of the login's topics or streams
for this From has is refused (`550 5.7.0 unknown-topic:`). *If there is one*: a topic or stream so called is chosen, and
otherwise the header has no effect, because it is about the vendor's own machines. `Assent-*` headers say the same in
our words; where both name a topic, a recipient needs both.

**Further recipients** that a header names are decided about as if there had been a RCPT for each: whoever may not be
sent to gets nothing, and stands in the report to the reverse path.

**Passing over a "no".** A header that asks for it is refused (`550 5.7.0 class-mismatch:`) unless the message is of a
class that no "no" stops, such as `account`: a login may ask for what the operator has allowed it by its streams, and
promotion never. Asked for, refused or not, it stands in the decision line.

**Families.** A name that ends in a star stands for every header that begins so. A vendor's headers without a row here
stay in the message: mail that is passed on bears traces of other systems, which ask for nothing.
"""

_EFFECTS: Final = {
    Meaning.NAMES: "names a topic or stream, which must exist",
    Meaning.HINTS: "names a topic or stream, if there is one",
    Meaning.CAMPAIGN: "names the campaign",
    Meaning.RECIPIENTS: "names further recipients",
    Meaning.BYPASS: "refused but for essential mail; recorded",
    Meaning.SERVICE: "**refused**",
    Meaning.NOTHING: "no effect",
}


def page(vendors: Iterable[Vendor], decision: str, path: str) -> str:
    """Return the page about all vendors; `decision` is the number of the one that explains it, `path` where it is."""
    opening = _OPENING.format(decision=decision, page=path)
    return "\n".join([opening, *(_section(vendor) for vendor in vendors)])


def _section(vendor: Vendor) -> str:
    rows = [_row(header, rule) for header in vendor.headers for rule in header.rules]
    table = "\n".join(["| header | effect | what it says |", "|---|---|---|", *rows])
    return f"## {vendor.name}: `{vendor.key}:`\n\n{table}\n\nSources: {'; '.join(vendor.sources)}.\n"


def _row(header: Header, rule: Rule) -> str:
    place = " ".join(f"`{one}`" for one in (header.name, ".".join(rule.path)) if one)
    effect = "; ".join([*_effects(rule), *(["stays in the message"] if header.keep else [])])
    unless = f" (not where it is {_either(rule.unless)})" if rule.unless else ""
    return f"| {place} | {effect} | {rule.says}{unless} |"


def _effects(rule: Rule) -> Iterator[str]:
    for meaning in rule.meanings:
        if meaning is Meaning.CLASS:
            yield ", ".join(f"{_value(value)} means {name}" for value, name in rule.classes.items())
        else:
            yield _EFFECTS[meaning]


def _value(value: str) -> str:
    return "any value" if value == ANY else f"`{value}`"


def _either(values: Iterable[str]) -> str:
    return " or ".join(f"`{one}`" for one in sorted(values))
