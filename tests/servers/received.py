"""
Messages as other programs write them, in bytes: each is parsed and sent again, or refused with a reason.

CPython's own test messages are not used, because Debian's Python does not include them.
"""

from __future__ import annotations

_HEAD = b"""\
Return-Path: <bounce@list.example.test>
Received: by mx.example.test (Postfix, from userid 889)
\tid 27CEAD38CC; Fri,  4 May 2001 14:05:44 -0400 (EDT)
Message-ID: <15090.61304.110929.45684@mx.example.test>
From: alice@example.test (Alice X. Doe)
To: to@example.test
Date: Fri, 4 May 2001 14:05:44 -0400
"""
_MIME = _HEAD + b"MIME-Version: 1.0\n"
_MIXED = _MIME + b'Content-Type: multipart/mixed; boundary="B"\n\n'

_WRITTEN = {
    "no MIME": _HEAD
    + b"""\
Subject: a test


Hi,

how are you?
""",
    "obsolete type": _MIME
    + b"""\
Content-Type: text; charset=us-ascii
Subject: a test

Hi
""",
    "no addresses": b"""\
Content-Type: text/plain
Subject: nobody

x
""",
    "odd addresses": b"""\
From: foo
Subject: bar
To: baz

x
""",
    "empty group": b"""\
From: alice@example.test
To: Announce:;
Subject: g

x
""",
    "null return path": b"""\
Return-Path: <>
Received: by mx.example.test (Postfix, from userid 889)
\tid 27CEAD38CC; Fri,  4 May 2001 14:05:44 -0400 (EDT)
Message-ID: <15090.61304.110929.45684@mx.example.test>
From: alice@example.test (Alice X. Doe)
To: to@example.test
Date: Fri, 4 May 2001 14:05:44 -0400
Subject: bounced

x
""",
    "mbox line": b"""\
From MAILER-DAEMON Fri Apr 06 16:46:09 2001
Return-Path: <bounce@list.example.test>
Received: by mx.example.test (Postfix, from userid 889)
\tid 27CEAD38CC; Fri,  4 May 2001 14:05:44 -0400 (EDT)
Message-ID: <15090.61304.110929.45684@mx.example.test>
From: alice@example.test (Alice X. Doe)
To: to@example.test
Date: Fri, 4 May 2001 14:05:44 -0400

x
""",
    "no header at all": b"""\
Send list submissions to
\tlist@example.test

To subscribe, visit us.
""",
    "no empty line": b"""\
From: a@example.test
To: b@example.test
Subject: here's something
counter to RFC 5322
""",
    "folded subject": _HEAD
    + b"""\
Subject: a demonstration
\t12345678911234567892
\tmore

x
""",
    "subject of encoded-words": _HEAD
    + b"""\
Subject: =?iso-8859-1?Q?Gr=FC=DFe?=
 =?utf-8?B?IMWbd2lhdA==?=

x
""",
    "raw 8-bit subject": _HEAD
    + b"""\
Subject: Gr\xc3\xbc\xc3\x9fe

x
""",
    "latin-1 body": _MIME
    + b"""\
Content-Type: text/plain; charset=iso-8859-1
Content-Transfer-Encoding: 8bit

\xe4
""",
    "body of no charset": _MIME
    + b"""\
Content-Type: text/plain

\xe4\xff
""",
    "quoted-printable": _MIME
    + b"""\
Content-Type: text/plain
Content-Transfer-Encoding: quoted-printable

a=
b =3D=
""",
    "broken base64": _MIME
    + b"""\
Content-Type: text/plain
Content-Transfer-Encoding: base64

SGVsbG8
""",
    "uuencoded": _MIME
    + b"""\
Content-Transfer-Encoding: x-uuencode

begin 666 a
#86)C
\x20
end
""",
    "parameters": _HEAD
    + b"""\
X-Odd: was; giraffes="very-long-necked";
\tspooge="yummy"; hippos="gargantuan"

x
""",
    "RFC 2231": _MIME
    + b"""\
Content-Type: text/plain; charset*=ansi-x3.4-1968''us-ascii;
 title*0*="us-ascii'en'This%20is%20";
 title*1*="%2Afun%2A ";
 title*2="isn't it!"

x
""",
    "flowed": _MIME
    + b"""\
Content-Type: text/plain; charset="us-ascii" ; format="flowed"

Text\x20
text
""",
    "two parts": _MIXED
    + b"""\
The preamble.
--B
Content-Type: text/plain

one

--B
Content-Type: text/html

<p>two
--B--
The epilogue.
""",
    "parts without fields": _MIXED
    + b"""\
--B

one
--B

two
--B--
""",
    "empty parts": _MIXED
    + b"""\
--B
Content-Type: text/plain


--B


--B--
""",
    "attached picture": _MIXED
    + b"""\
--B
Content-Type: image/gif; name="p.gif"
Content-Transfer-Encoding: base64
Content-Disposition: attachment; filename="p.gif"

R0lGODlhAQABAIAAAP///wAAACH5BAE=
--B--
""",
    "parts in parts": _MIXED
    + b"""\
--B
Content-Type: multipart/alternative; boundary=C

--C

one
--C
Content-Type: text/html

<p>one
--C--
--B

two
--B--
""",
    "boundary that never comes": _MIXED
    + b"""\
Hi there,

something was left out.
""",
    "boundary that never ends": _MIXED
    + b"""\
--B

one
""",
    "boundary of spaces": _MIME
    + b"""\
Content-Type: multipart/mixed; boundary="--- =_a 0"

----- =_a 0

one
""",
    "no boundary": _MIME
    + b"""\
Content-Type: multipart/mixed

--B

one
--B--
""",
    "forwarded": _MIME
    + b"""\
Content-Type: message/rfc822
Content-Description: forwarded

From: c@example.test
To: d@example.test
Subject: inside

The inner text.
""",
    "digest": _MIME
    + b"""\
Content-Type: multipart/digest; boundary=B

--B

From: c@example.test
To: d@example.test
Subject: inside

The inner text.

--B
Content-Type: text/plain

not a message
--B--
""",
    "delivery report": _MIME
    + b"""\
Content-Type: multipart/report; report-type=delivery-status;
\tboundary=B

--B

It failed.
--B
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example.test

Final-Recipient: rfc822; to@example.test
Action: failed
Status: 5.1.1

--B
Content-Type: text/rfc822-headers

Subject: bounced

--B--
""",
    "external body": _MIXED
    + b"""\
--B
Content-Type: message/external-body; name="d.txt"; site="ftp.example.test"; access-type="anon-ftp"

Content-Type: text/plain
Content-ID: <1@example.test>


--B--
""",
    "long line": _HEAD + b"\n" + b"x" * 999 + b"\n",
    "bare CR": _HEAD
    + b"""\

one\rtwo
""",
}
RECEIVED = {name: raw.replace(b"\n", b"\r\n") for name, raw in _WRITTEN.items()}
