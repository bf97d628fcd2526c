"""
The queue id in a server's reply to the content: a name under which that server's log has the message.

How it works: no standard says where the id is, so a table has the form of each server's reply. A pattern must match the
whole text and describes the id exactly. A reply that differs has no id: a wrong one is worse than none. Each id is 1 to
64 ASCII letters, digits, dots, hyphens and underscores, whatever the server sends.

A proxy that passes on the reply of the next server, such as Dovecot's submission service, passes on that server's id.
"""

from __future__ import annotations

import re

# RFC 3463. Not every server writes one, not even Postfix before 2.3.
_ENHANCED = r"(?:2\.\d{1,3}\.\d{1,3} )?"
_UUID = r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
# Postfix, src/global/mail_queue.h: microseconds and inode in hexadecimal digits; with enable_long_queue_ids, the time
# and the inode in digits and letters without vowels, with a "z" between them.
_SHORT = r"[0-9A-F]{6,21}"
_LONG = r"[0-9B-DF-HJ-NP-TV-Zb-df-hj-np-tv-z]{10,12}z[0-9B-DF-HJ-NP-TV-Zb-df-hj-np-tv-y]{1,12}"

_FORMS = {
    # src/smtpd/smtpd.c, and tests/servers: the number of bytes is in the reply to BDAT.
    "Postfix": rf"Ok: (?:\d{{1,10}} bytes )?queued as ({_SHORT}|{_LONG})",
    # src/src/receive.c, and tests/servers: the first line is in the reply to BDAT. The id has 16 characters, since 4.97
    # it has 23 (exim_id_update(8)).
    "Exim": (
        r"(?: ?\d{1,10} byte chunk, total \d{1,10} )?"
        r"OK id=([0-9A-Za-z]{6}-(?:[0-9A-Za-z]{6}-[0-9A-Za-z]{2}|[0-9A-Za-z]{11}-[0-9A-Za-z]{4}))"
    ),
    # sendmail/srvrsmtp.c; the id is made in sendmail/queue.c: eight characters of the time, and the process.
    "Sendmail": r"([0-9A-Za-x]{8}\d{6,7}) Message accepted for delivery",
    # usr.sbin/smtpd/smtp_session.c, and tests/servers.
    "OpenSMTPD": r"([0-9a-f]{8}) Message accepted for delivery",
    # courier/submit2.C: the time and the process, with which the id in Courier's log ends.
    "Courier": r"Ok\. ([0-9A-F]{8}(?:[0-9A-F]{8})?\.[0-9A-F]{8})",
    # As seen in github.com/haraka/Haraka/pull/1092.
    "Haraka": rf"Message Queued \(({_UUID}(?:\.\d{{1,6}}){{0,2}})\)",
    # As seen in github.com/PHPMailer/PHPMailer/issues/1615. The Message-ID in front is the client's own. The number is
    # InternalId of Microsoft.Exchange.Data.QueueViewer.MessageIdentity (learn.microsoft.com).
    "Microsoft": (
        r"<[^<>\s]{1,300}> \[InternalId=(\d{1,20})(?:, Hostname=[0-9A-Za-z.-]{1,255})?\]"
        r"(?: \d{1,12} bytes in [\d.]{1,12}, [\d.,]{1,16} KB/sec)? Queued mail for delivery(?: -> 250 2\.1\.5)?"
    ),
    # As seen in github.com/PHPMailer/PHPMailer/pull/3004.
    "Gmail": r"OK {1,2}\d{10} ([0-9a-z][0-9a-z-]{5,55}\.\d{1,4}) - gsmtp",
    # As seen in github.com/symfony/symfony/issues/46323, and an id in github.com/nodemailer/nodemailer/issues/948.
    "Amazon SES": r"Ok ([0-9a-f]{16}-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}-\d{6})",
    # As seen in github.com/sendgrid/docs/issues/2638.
    "SendGrid": r"Ok: queued as ([0-9A-Za-z_-]{22})",
    # As seen in github.com/PHPMailer/PHPMailer/pull/2578.
    "Mailjet": rf"OK queued as ({_UUID})",
    # As seen in github.com/PHPMailer/PHPMailer/issues/2650.
    "MailerSend": r"Message queued as ([0-9a-f]{24})",
    # As seen in github.com/nodemailer/nodemailer/issues/422.
    "Yandex": r"Ok: queued on [0-9A-Za-z.-]{1,255} as (\d{10}-[0-9A-Za-z]{4,16}-[0-9A-Za-z]{4,16})",
    # testing/_engine.py and testing/_peer.py.
    "securesmtp.testing": r"queued as (\d{1,10})",
}


def find_queue_id(text: str) -> str | None:
    """Return the queue id in *text*, the text of a reply to the content, or None unless it is certain."""
    # Compiled when first needed: each `import securesmtp` would take a millisecond longer.
    matches = (re.fullmatch(_ENHANCED + form, text, re.ASCII) for form in _FORMS.values())
    return next((match[1] for match in matches if match is not None), None)
