"""SASLprep (RFC 4013): client and server make the same bytes of a username or password, however it was typed."""

from __future__ import annotations


def saslprep(text: str) -> str | None:
    """
    Return *text* prepared, or None if it cannot be: it has a prohibited character, or its directions are mixed.

    The tables are those of Unicode 3.2. What that does not assign is allowed (a "query" of RFC 3454 §7): emoji, above
    all. It returns None, since a traceback through a frame that raises would show the text.
    """
    # Imported here because it takes 2 ms, which a login without SCRAM does not need.
    import stringprep
    from unicodedata import ucd_3_2_0

    mapped = "".join(
        " " if stringprep.in_table_c12(character) else character
        for character in text
        if not stringprep.in_table_b1(character)
    )
    prepared = ucd_3_2_0.normalize("NFKC", mapped)
    # RFC 4013 §2.3; its C.1.2 was mapped above.
    prohibited = (
        stringprep.in_table_c21_c22,
        stringprep.in_table_c3,
        stringprep.in_table_c4,
        stringprep.in_table_c5,
        stringprep.in_table_c6,
        stringprep.in_table_c7,
        stringprep.in_table_c8,
        stringprep.in_table_c9,
    )
    if not prepared or any(is_in(character) for character in prepared for is_in in prohibited):
        return None
    # RFC 3454 §6: text with a right-to-left letter has one at both ends, and no left-to-right letter.
    right_to_left = [stringprep.in_table_d1(character) for character in prepared]
    if any(right_to_left) and not (
        right_to_left[0] and right_to_left[-1] and not any(map(stringprep.in_table_d2, prepared))
    ):
        return None
    return prepared
