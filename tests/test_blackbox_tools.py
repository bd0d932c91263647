"""Marketing tools that put their own unsubscribe link into what they send: they hear of each opt-out (UNS-36)."""

from __future__ import annotations

import email
import email.policy
import re
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from itertools import count

import pytest

from tests.gateway_under_test import Gateway, eventually
from tests.receiver import Receiver, Told, receiving
from tests.sink import Received, Sink

Someone = Callable[[], str]
SENDER = "letters@news.example.com"
_numbers = count(1)


@pytest.fixture(scope="module")
def mautic() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def house(shared_sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    made = Gateway(tmp_path_factory.mktemp("tools") / "house", shared_sink.url).prepare()
    made.add_login("mautic", "newsletter", "--tool-hosts", "127.0.0.1")
    made.add_login("listmonk", "newsletter", "--tool-hosts", "lists.example.net,localhost")
    yield made.start()
    made.close()


@pytest.fixture
def tool(mautic: Receiver) -> Iterator[Receiver]:
    mautic.normal()
    mautic.told.clear()
    yield mautic
    mautic.normal()


def amply(url: str) -> str:
    """Escape an address for HTML as most programs do."""
    return url.replace("&", "&amp;")


def letter(to: str, url: str, escaped: Callable[[str], str] = amply) -> bytes:
    """Return a newsletter as Mautic makes it: its own link in the header, in the text and in quoted-printable HTML."""
    message = EmailMessage(policy=email.policy.SMTP)
    message["From"], message["To"], message["Subject"] = f"Letters <{SENDER}>", to, "Spring"
    message["Message-ID"] = f"<spring{next(_numbers)}@mautic.example.net>"
    message["Date"] = "Sun, 22 Nov 2026 10:00:00 +0000"
    message["List-Unsubscribe"] = f"<mailto:out@mautic.example.net?subject=stop>, <{url}>"
    message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    message.set_content(f"Spring is here.\n\nNo more of this: {url}.\n", cte="8bit")
    page = f'<html><body><p>Spring \u2014 here</p><a href="{escaped(url)}">Unsubscribe</a></body></html>'
    message.add_alternative(page, subtype="html", cte="quoted-printable")
    return message.as_bytes()


def relayed(
    house: Gateway, sink: Sink, reader: str, url: str, login: str = "mautic", escaped: Callable[[str], str] = amply
) -> Received:
    house.opt_in(reader)
    replies = house.submit(letter(reader, url, escaped), [reader], login=login, sender=SENDER)
    assert replies[""][0] == 250, replies
    return eventually(lambda: next((one for one in sink.messages if reader in str(one.recipients)), None))


def links_in(copy: Received) -> tuple[set[str], str]:
    """Return the copy's unsubscribe links, and all that a reader's program would show, header and body, decoded."""
    parsed = email.message_from_bytes(copy.content, policy=email.policy.default)
    shown = str(parsed["List-Unsubscribe"]) + "".join(
        part.get_content() for part in parsed.walk() if part.get_content_maintype() == "text"
    )
    return set(re.findall(r"https://mail\.example\.com/u/([\w.-]*[\w-])", shown)), shown


def at(tool: Receiver, path: str) -> list[Told]:
    return [one for one in tool.told if one.path == path]


@pytest.mark.req("UNS-36")
def test_the_tools_own_link_becomes_ours_and_after_the_click_the_tool_hears_of_it_once(
    house: Gateway, tool: Receiver, sink: Sink, someone: Someone
) -> None:
    reader = someone()
    path = f"/email/unsubscribe/a-long-campaign-{next(_numbers)}?who={reader.replace('@', '%40')}&list=7"
    copy = relayed(house, sink, reader, tool.url + path)
    (token,), shown = links_in(copy)
    assert tool.url not in shown and shown.count(token) == 3, "header, text and HTML carry our one link"
    assert tool.told == []
    assert house.one_click(token).status == 200
    (told,) = eventually(lambda: at(tool, path))
    assert told.body == b"List-Unsubscribe=One-Click"
    assert told.headers["content-type"] == "application/x-www-form-urlencoded"
    assert "cookie" not in told.headers and "authorization" not in told.headers

    elsewhere = relayed(house, sink, other := someone(), f"{tool.url}/second")
    assert house.one_click(token).status == 200, "said again"
    assert house.one_click(next(iter(links_in(elsewhere)[0]))).status == 200
    eventually(lambda: at(tool, "/second"))
    assert len(at(tool, path)) == 1 and other not in house.log.read_text()
    assert path not in house.log.read_text()


@pytest.mark.req("UNS-36")
def test_the_tools_own_link_becomes_ours_where_its_template_escapes_every_sign(
    house: Gateway, tool: Receiver, sink: Sink, someone: Someone
) -> None:
    def mustached(url: str) -> str:
        return amply(url).replace("/", "&#x2F;").replace("=", "&#x3D;")

    copy = relayed(house, sink, someone(), f"{tool.url}/every-sign?who=7&list=7", escaped=mustached)
    (token,), shown = links_in(copy)
    assert "every-sign" not in shown and shown.count(token) == 3


@pytest.mark.req("UNS-36")
def test_a_host_that_is_not_listed_or_not_what_it_seems_gets_nothing(
    house: Gateway, tool: Receiver, sink: Sink, someone: Someone
) -> None:
    clicked = []
    for login, url in (
        ("news", f"{tool.url}/unlisted"),
        ("listmonk", f"http://127.0.0.1:{tool.port}/other-host"),
        ("listmonk", f"https://127.0.0.1:{tool.port}/other-host"),
        ("mautic", f"http://localhost:{tool.port}/by-name"),
    ):
        (token,), shown = links_in(relayed(house, sink, someone(), url, login))
        assert url not in shown, "the link becomes ours all the same"
        clicked.append(house.one_click(token).status)
    (token,), _ = links_in(relayed(house, sink, someone(), f"http://localhost:{tool.port}/listed", "listmonk"))
    clicked.append(house.one_click(token).status)
    eventually(lambda: at(tool, "/listed"))
    assert clicked == [200] * 5
    assert [one.path for one in tool.told] == ["/listed"]


@pytest.mark.req("UNS-36")
def test_a_tool_that_is_away_hears_of_it_later_also_after_a_kill_and_no_redirect_is_followed(
    house: Gateway, tool: Receiver, sink: Sink, someone: Someone
) -> None:
    answers = iter([302])
    tool.headers = {"Location": f"{tool.url}/elsewhere"}
    tool.answer = lambda path, body: next(answers, 500)
    (token,), _ = links_in(relayed(house, sink, someone(), f"{tool.url}/away"))
    assert house.one_click(token).status == 200
    eventually(lambda: at(tool, "/away"))
    (waiting,) = eventually(lambda: [one for one in house.json("webhooks", "list") if one["last_answer"]])
    assert waiting["name"] == "tool:127.0.0.1" and "redirects are not followed" in waiting["last_answer"]
    house.kill()
    tool.answer = lambda path, body: 204
    house.start()
    house.run("webhooks", "retry", "tool:127.0.0.1", check=False)
    eventually(lambda: 204 in [one.status for one in at(tool, "/away")])
    assert at(tool, "/elsewhere") == []


@pytest.mark.req("UNS-36")
def test_an_erased_persons_tool_is_told_and_the_link_that_names_them_is_gone(
    house: Gateway, tool: Receiver, sink: Sink, someone: Someone
) -> None:
    reader = someone()
    relayed(house, sink, reader, f"{tool.url}/stop?email={reader}")
    assert house.run("person", "erase", reader, check=False).returncode == 0
    eventually(lambda: at(tool, f"/stop?email={reader}"))
