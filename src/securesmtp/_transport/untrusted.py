"""
What to do about a chain that does not end in a trusted root.

The verdict is OpenSSL's; here it is explained. The text has the issuer that the server's certificates name, which
nobody has verified; the hint has the CAs that the caller passed, so that a person can compare them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

    from securesmtp._options import TLSPolicy

# A certificate as `ssl.SSLSocket.getpeercert` returns it.
Fields: TypeAlias = dict[str, Any]
# What happened, and what to do.
_Explanation: TypeAlias = tuple[str, str]

# X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT and X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN in OpenSSL's x509_vfy.h.
_SELF_SIGNED, _SELF_SIGNED_IN_CHAIN = 18, 19
# Trusted CAs that a hint names, characters of all of them, and of one name. An error shows 500 of a hint.
_MAX_CAS, _MAX_LISTED, _MAX_NAME = 3, 200, 100


class Untrusted(NamedTuple):
    """
    A chain that does not end in a trusted root.

    Attributes:
        sent: The certificates that the server sent, its own first.
        chain: The server's certificate and those above it, as far as they are known.
        trusted: The certificates of trusted CAs.
        policy: Where these are from.
    """

    sent: Sequence[Fields]
    chain: Sequence[Fields]
    trusted: Sequence[Fields]
    policy: TLSPolicy


def explain(code: int, found: Untrusted) -> _Explanation:
    """Return the text and the hint for what was *found*, which OpenSSL refused with *code*."""
    text, hint = _explain_missing_root(found) or _explain(code, found)
    return text, hint if found.policy.pins is None else f"{hint}; a pin does not replace that"


def quote_name(certificate: Fields, which: str) -> str:
    """Return the subject or the issuer of a certificate as an error shows it; empty if it has none."""
    attributes = dict(pair for part in certificate.get(which, ()) for pair in part)
    name = attributes.get("commonName", ", ".join(attributes.values()))[:_MAX_NAME]
    # By repr: anyone can put anything into a certificate.
    return name and repr(name)


def _explain(code: int, found: Untrusted) -> _Explanation:
    name = quote_name(found.chain[-1], "issuer") if found.chain else ""
    ask = "get {} from whoever runs {}, not over this connection, and pass it as " + _argument(found.policy)
    if code == _SELF_SIGNED:
        return "the certificate is self-signed", _compare("certificate", found) + ask.format("it", "the server")
    text = "the certificate is not signed by a trusted CA"
    if code == _SELF_SIGNED_IN_CHAIN:
        text = f"the certificate's chain ends in a root that is not trusted{name and ': '}{name}"
    elif name:
        text += f": its issuer is {name}" if len(found.sent) == 1 else f": its chain ends with the issuer {name}"
    return text, _what_to_do(code, name, found, ask)


def _what_to_do(code: int, name: str, found: Untrusted, ask: str) -> str:
    sent, chain, trusted, policy = found
    source, has = _source(policy)
    if name and any(each.get("subject") == chain[-1]["issuer"] for each in trusted):
        causes = "it may have been renewed, or somebody uses its name"
        return f"{source} {has} another CA with that name: {causes}; ask who runs the server"
    what = "root" if code == _SELF_SIGNED_IN_CHAIN else "issuer"
    compared = _compare(what, found)
    if compared and sent and not trusted:
        return compared + ask.format("the CA's root certificate", "the CA")
    others = "the server may have another CA, or somebody else may answer; ask who runs the server, or the network"
    if compared and policy.trust is None:
        one = " (the server sent one certificate)" * (len(sent) == 1)
        return compared + ("" if what == "root" else f"an intermediate may be missing{one}, ") + others
    unknown = f"if you do not know that {what}, ask before you trust it"
    if what == "root":
        return f"{compared}if it is that of your private CA, {ask.format('it', 'the CA')}; {unknown}"
    if not compared and len(sent) == 1 and _is_public(sent[0]):
        return (
            "the server does not send the certificate of its issuer: add it on the server, after its own "
            "(Postfix: smtpd_tls_chain_files), unless it is the root of a private CA"
        )
    public = "for a public CA, the server must send its chain"
    return f"{compared}pass a private CA's root as {_argument(policy)}; {public}; {unknown}"


def _explain_missing_root(found: Untrusted) -> _Explanation | None:
    """Name the intermediate certificate that is trusted without its root; None if there is none."""
    for each in found.chain[1:]:
        if each in found.trusted and each["subject"] != each["issuer"]:
            names = ("trust", "ca_file", "ca_data", "extra_ca_file")
            given = [name for name in names if getattr(found.policy, name) is not None]
            source = " and ".join("the system's file" if name == "trust" else name for name in given)
            name, issuer = quote_name(each, "subject"), quote_name(each, "issuer")
            text = f"{source} has the intermediate certificate {name} but not the certificate of its issuer {issuer}"
            return text, f"add the root certificate of that chain to {source}"
    return None


def _is_public(certificate: Fields) -> bool:
    """Return whether a certificate says where that of its issuer is, as each public CA's does."""
    # CA/Browser Forum, Baseline Requirements §7.1.2.7. Private CAs do so rarely, or by LDAP.
    return any(str(url).startswith("http://") for url in certificate.get("caIssuers", ()))


def _compare(what: str, found: Untrusted) -> str:
    """Return which CAs the server's was compared with, as the start of a hint; empty if the caller has passed none."""
    source, has = _source(found.policy)
    if source == "certifi":
        return ""
    names = list(dict.fromkeys(quote_name(each, "subject") for each in found.trusted))
    if not names:
        return f"{source} {has} no CA: "
    # One without a name, or that cannot be decoded, is only counted.
    count, shown = len(names) if all(names) else len(found.trusted), ", ".join(names)
    if not all(names) or count > _MAX_CAS or len(shown) > _MAX_LISTED:
        shown = f"{count} CA{'s' * (count > 1)}"
    return f"{source} {has} {shown}, not this {what}: "


def _source(policy: TLSPolicy) -> tuple[str, str]:
    """Return where the trusted CAs are from, and the verb for it."""
    base = "certifi" if policy.trust is None else "the system's file"
    base = "ca_file" if policy.ca_file is not None else "ca_data" if policy.ca_data is not None else base
    return (base, "has") if policy.extra_ca_file is None else (f"{base} and extra_ca_file", "have")


def _argument(policy: TLSPolicy) -> str:
    """Return the argument that another CA is to be passed as."""
    if policy.trust is not None or policy.extra_ca_file is not None:
        return "extra_ca_file"
    return "ca_file" if policy.ca_data is None else "ca_data"
