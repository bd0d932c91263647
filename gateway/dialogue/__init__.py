"""The server's side of SMTP without I/O: octets in, events out, replies in, octets out (RFC 5321).

The rule that must not be broken: only CRLF.CRLF ends a message, and a message with a bare CR, a bare LF or a NUL is
refused, never repaired, so that nobody who reads it after us can see two where we saw one (SMTP-06). What is
kept in memory is counted and bounded whatever the client sends.

`machine` leads the conversation, `syntax` reads its lines, `arrival` its messages, `sasl` its logins. Who may log in,
who may send and what becomes of a message are questions to the listener; sockets, TLS and time are its own affair.
"""

from gateway.dialogue.machine import Auth, Content, Dialogue, Event, Hello, Mail, Rcpt, StartTls, Terms
from gateway.dialogue.sasl import Credentials

__all__ = ["Auth", "Content", "Credentials", "Dialogue", "Event", "Hello", "Mail", "Rcpt", "StartTls", "Terms"]
