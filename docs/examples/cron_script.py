"""
Send the report of the night: `python cron_script.py chart.png report.pdf`.

The exit status is 0 if everybody was accepted, 75 if a later run may succeed, 3 if the
report may have arrived, and 1 if somebody must look at the log.
"""

import logging
import sys
from email.message import EmailMessage

from securesmtp import Outcome, SecureMailer, SecureSMTPError, compose

log = logging.getLogger("report")


def write_report(chart: str, pdf: str) -> EmailMessage:
    """Write the message."""
    return compose(
        sender=("Reports", "reports@example.com"),
        to=["ada@example.net", ("Bob", "bob@example.net"), "eve@example.org"],
        subject="The report of the night",
        text="The report is attached.",
        html='<p>The report is attached.</p><img src="cid:chart" alt="Orders by hour">',
        inline={"chart": chart},
        attachments=pdf,
        automatic=True,
    )


def log_failure(error: SecureSMTPError) -> int:
    """Log the error, and return the exit status."""
    log.error("%s, message_id=%s: %s", error.outcome, error.message_id, error)
    if error.outcome is Outcome.UNKNOWN:
        return 3
    return 75 if error.retryable else 1


def main(chart: str, pdf: str) -> int:
    """Send the report, log what became of it, and return the exit status."""
    try:
        message = write_report(chart, pdf)
        with SecureMailer.from_env() as mailer:
            receipt = mailer.send(message, partial="allow")
    except SecureSMTPError as error:
        return log_failure(error)
    ids = receipt.message_id, receipt.queue_id
    log.info("accepted, message_id=%s, queue_id=%s", *ids)
    for each in receipt.recipients:
        if not each.accepted:
            log.error("refused for %s: %s", each.address, each.reply)
    return 1 if receipt.refused else 0


if __name__ == "__main__":
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    sys.exit(main(*sys.argv[1:]))
