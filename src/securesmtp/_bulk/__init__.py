"""`send_many` except waiting: its messages, its workers, what may be sent again, and what ends it."""
