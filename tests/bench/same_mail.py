"""
Send the same message with several libraries to a server with TLS; fail if the table of the page says something else.

`nox -s same_mail` runs it. Each program of docs/examples/same_mail runs as printed, in a process of its own, with the
server's name and login in the environment. What arrives must have the text, the HTML, the image and the PDF, and go to
both recipients.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import subprocess
import sys
import tempfile
from email import message_from_bytes, policy
from email.message import MIMEPart
from pathlib import Path
from typing import Any

from securesmtp.testing import MailServer, Received

PROGRAMS = Path(__file__).parents[2] / "docs/examples/same_mail"
PAGE = PROGRAMS.parents[1] / "explanation/same-mail.md"
LOGO, PDF = b"\x89PNG\r\n\x1a\n not a picture", b"%PDF-1.7 not a document"
PASSWORD = "correct horse battery staple"
# In the order of the page.
LIBRARIES = ("securesmtp", "yagmail", "nodemailer", "red-mail", "smtplib", "Django")


def program(library: str) -> Path:
    """Return the program that uses *library*."""
    name = library.lower().replace("-", "")
    return PROGRAMS / f"with_{name}.{'cjs' if name == 'nodemailer' else 'py'}"


def count_lines(path: Path) -> tuple[int, int]:
    """Return the number of lines without blank ones and imports, and the number of imports."""
    text = path.read_text("utf-8")
    lines = [line for line in text.splitlines() if line.strip()]
    if path.suffix == ".py":
        imports = sum(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.parse(text).body)
    else:
        imports = sum("= require(" in line for line in lines)
    return len(lines) - imports, imports


def run(library: str, node_modules: str = "") -> Received:
    """Run the program that uses *library*, and return what the server received."""
    path = program(library)
    with tempfile.TemporaryDirectory() as folder, MailServer(login=("ada@example.com", PASSWORD)) as server:
        ca_file = Path(folder, "ca.pem")
        ca_file.write_text(server.ca_pem, "ascii")
        Path(folder, "logo.png").write_bytes(LOGO)
        Path(folder, "report.pdf").write_bytes(PDF)
        environment = {
            **os.environ, "SMTP_HOST": server.host, "SMTP_PORT": str(server.port), "SMTP_USERNAME": "ada@example.com",
            "SMTP_PASSWORD": PASSWORD, "SMTP_CA_FILE": str(ca_file), "SSL_CERT_FILE": str(ca_file),
            "NODE_EXTRA_CA_CERTS": str(ca_file), "NODE_PATH": node_modules,
        }  # fmt: skip
        command = ["node"] if path.suffix == ".cjs" else [sys.executable]
        subprocess.run([*command, str(path)], cwd=folder, env=environment, check=True, timeout=120)
        (received,) = server.messages
    return received


def tree(part: MIMEPart) -> str:
    """Return the structure of *part*, such as ``mixed(alternative(plain, html), pdf)``."""
    kind = part.get_content_subtype()
    children = ", ".join(tree(child) for child in part.iter_parts()) if part.is_multipart() else ""
    return f"{kind}({children})" if children else kind


def check(received: Received) -> str:
    """Return the structure of what arrived, which must have all parts of the mail."""
    assert received.recipients == ("bob@example.net", "eve@example.net"), received.recipients
    message = message_from_bytes(received.content, policy=policy.default)
    assert message["Subject"] == "Your invoice"
    contents: dict[str, Any] = {part.get_content_type(): part.get_payload(decode=True) for part in message.walk()}
    assert [part.get_payload(decode=True) for part in message.walk() if part.get_filename() == "report.pdf"] == [PDF]
    assert b"Your invoice is attached." in contents["text/plain"]
    (image,) = (part for part in message.walk() if part.get_payload(decode=True) == LOGO)
    (named,) = re.findall(rb'cid:([^"\s]+)', contents["text/html"])
    assert str(image["Content-ID"]).strip("<>") == named.decode()
    return tree(message)


def row(library: str, structure: str) -> str:
    """Return a row of the table."""
    lines, imports = count_lines(program(library))
    return f"| {library} | {lines} | {imports} | `{structure}` |\n"


def main() -> int:
    """Print each row of the table, and return 1 if the page does not have one of them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--node-modules", default="")
    node_modules = parser.parse_args().node_modules
    rows = [row(library, check(run(library, node_modules))) for library in LIBRARIES]
    print(*rows, sep="")
    return int(not all(each in PAGE.read_text("utf-8") for each in rows))


if __name__ == "__main__":
    sys.exit(main())
