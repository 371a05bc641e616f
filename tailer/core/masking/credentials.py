"""Rules for keys and tokens that are recognisable by their own shape.

Owns: the prefixes and alphabets of the known providers, JSON Web Tokens, PEM private keys, passwords in URLs,
`Authorization` values. Refuses: to judge a value by the name before it; `named_secrets` does that.
"""

import re
from collections.abc import Callable, Iterator

from tailer.core.masking.detection import BOUNDARY, Rule, Span, accept_all, find_with

LONG_PART = re.compile(r"[A-Za-z0-9]{12,}")
TEMPLATE = re.compile(r"\A(?:\$|\{|<|%[({s]|:?\[|\*+\Z|x+\Z|X+\Z|\.+\Z|[^:]*:(?:\$|\{|<|%[({s]|\*+\Z|x+\Z))")

PEM_BEGIN = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
PEM_END = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
PEM_BODY = re.compile(r"[A-Za-z0-9+/=\s\\:,-]*")

JWT = re.compile(BOUNDARY + r"eyJ[A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]*){0,4}")
SHORTEST_JWT_PART = 8
FEWEST_JWT_PARTS = 3


def _looks_random(match: re.Match[str]) -> bool:
    """Whether a long part of it has digits, unlike a name such as `sk-loading-spinner-container`."""
    value = match.group()
    return any(character.isdecimal() for character in value) and (
        LONG_PART.search(value) is not None or any(character.isupper() for character in value)
    )


def _is_filled_in(match: re.Match[str]) -> bool:
    """Whether the value is more than a variable or a row of stars in a template."""
    return TEMPLATE.match(match[match.lastgroup or 0]) is None


def _is_authorization(match: re.Match[str]) -> bool:
    value = match[match.lastgroup or 0]
    return any(character.isdecimal() for character in value) or value.endswith("=")


def find_json_web_tokens(text: str) -> Iterator[Span]:
    """Tokens of three (signed) or five (encrypted) parts. Each run of characters is read only once."""
    for match in JWT.finditer(text):
        parts = match.group().split(".")
        if (
            len(parts) >= FEWEST_JWT_PARTS
            and len(parts[0]) >= SHORTEST_JWT_PART
            and len(parts[1]) >= SHORTEST_JWT_PART // 2
        ):
            end = match.end()
            while text[end - 1] == ".":
                end -= 1
            yield match.start(), end


def find_private_keys(text: str) -> Iterator[Span]:
    """PEM and PGP private key blocks. A truncated block is masked to its end."""
    position = 0
    while (begin := PEM_BEGIN.search(text, position)) is not None:
        end = PEM_END.search(text, begin.end())
        if end is None:
            break
        yield begin.start(), end.end()
        position = end.end()
    while (begin := PEM_BEGIN.search(text, position)) is not None:
        body = PEM_BODY.match(text, begin.end())
        position = body.end() if body is not None else begin.end()
        yield begin.start(), position


def _announces_authorization(before: str) -> bool:
    return before.lower().endswith("authorization: ")


def _rule(
    name: str,
    triggers: tuple[str, ...],
    expression: str,
    accepts: Callable[[re.Match[str]], bool] = accept_all,
) -> Rule:
    return Rule(name=name, triggers=triggers, find=find_with(BOUNDARY + expression, accepts))


RULES: tuple[Rule, ...] = (
    Rule(name="private-key", triggers=("PRIVATE KEY",), find=find_private_keys),
    Rule(
        name="url-credentials",
        triggers=("://",),
        shortest=len("://:a@"),
        # The last at sign before the path ends the password, because people do not always escape one inside it.
        find=find_with(
            r"://(?:(?P<value>[^\s/?#@\"'<>:\[\]]{0,128}:[^\s/\"'<>]{1,256})"
            r"|(?:(?<=http://)|(?<=https://))(?P<token>[A-Za-z0-9_-]{20,128}))@",
            _is_filled_in,
        ),
    ),
    _rule("anthropic-key", ("sk-ant-",), r"sk-ant-[A-Za-z0-9_-]{16,}", _looks_random),
    _rule("langfuse-key", ("k-lf-",), r"[sp]k-lf-[0-9a-zA-Z-]{16,}", _looks_random),
    _rule("openrouter-key", ("sk-or-",), r"sk-or-(?:v1-)?[0-9a-zA-Z]{24,}", _looks_random),
    _rule("openai-key", ("sk-",), r"sk-(?!ant-|lf-|or-)[A-Za-z0-9_-]{20,}", _looks_random),
    _rule("google-key", ("AIza",), r"AIza[A-Za-z0-9_-]{30,}"),
    _rule("google-secret", ("GOCSPX-", "ya29."), r"(?:GOCSPX-|ya29\.)[A-Za-z0-9_-]{20,}"),
    _rule("aws-key", ("AKIA", "ASIA"), r"(?:AKIA|ASIA)[A-Z2-7][A-Z0-9]{15}(?![A-Za-z0-9])", _looks_random),
    _rule(
        "github-token",
        ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
        r"(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{22,})",
    ),
    _rule(
        "gitlab-token",
        ("gl",),
        r"gl(?:pat|dt|rt|ptt|cbt|soat|ft|agent|imt)-[A-Za-z0-9_-]{20,}",
        _looks_random,
    ),
    _rule("slack-token", ("xox", "xapp-"), r"(?:xox[abceoprs]|xapp)-[A-Za-z0-9-]{10,}", _looks_random),
    _rule(
        "slack-webhook",
        ("hooks.slack.com",),
        r"hooks\.slack\.com/(?P<value>(?:services|workflows)/[A-Za-z0-9/]{20,})",
    ),
    _rule(
        "stripe-key", ("k_live_", "k_test_", "whsec_"), r"(?:[srp]k_(?:live|test)_|whsec_)[A-Za-z0-9+/]{16,}"
    ),
    _rule("huggingface-token", ("hf_",), r"hf_[A-Za-z0-9]{30,}"),
    _rule("groq-key", ("gsk_",), r"gsk_[A-Za-z0-9]{32,}"),
    _rule("xai-key", ("xai-",), r"xai-[A-Za-z0-9]{32,}", _looks_random),
    _rule("perplexity-key", ("pplx-",), r"pplx-[A-Za-z0-9]{32,}"),
    _rule("replicate-token", ("r8_",), r"r8_[A-Za-z0-9]{32,}"),
    _rule("sendgrid-key", ("SG.",), r"SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}"),
    _rule("twilio-key", ("SK", "AC"), r"(?:SK|AC)[0-9a-f]{32}(?![A-Za-z0-9])"),
    _rule("npm-token", ("npm_",), r"npm_[A-Za-z0-9]{30,}"),
    _rule("pypi-token", ("pypi-",), r"pypi-[A-Za-z0-9_-]{40,}"),
    _rule("digitalocean-token", ("_v1_",), r"do[opr]_v1_[0-9a-f]{40,}"),
    _rule("telegram-token", (":AA",), r"[0-9]{8,10}:AA[A-Za-z0-9_-]{30,40}(?![A-Za-z0-9_-])"),
    _rule("shopify-token", ("shp",), r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}"),
    _rule("vault-token", ("hvs.", "hvb."), r"hv[sb]\.[A-Za-z0-9_-]{24,}"),
    _rule("docker-token", ("dckr_",), r"dckr_(?:pat|oat)_[A-Za-z0-9_-]{20,}"),
    _rule("databricks-token", ("dapi",), r"dapi[0-9a-f]{32}"),
    _rule("linear-key", ("lin_",), r"lin_(?:api|oauth)_[A-Za-z0-9]{32,}"),
    _rule("notion-token", ("ntn_",), r"ntn_[A-Za-z0-9]{40,}"),
    Rule(name="jwt", triggers=("eyJ",), find=find_json_web_tokens),
    Rule(
        name="bearer",
        triggers=("bearer", "authorization"),
        folded=True,
        is_announced=_announces_authorization,
        find=find_with(
            r"(?<![A-Za-z0-9])(?:bearer[ \t]{1,4}(?P<value>[A-Za-z0-9._~+/-]{16,}={0,2})"
            r"|authorization[\"']?[ \t]{0,4}[:=][ \t]{0,4}[\"']?(?:basic|token|apikey)[ \t]{1,4}"
            r"(?P<basic>[A-Za-z0-9._~+/-]{8,}={0,2}))",
            _is_authorization,
            re.IGNORECASE,
        ),
    ),
)
