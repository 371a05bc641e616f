"""The rule for secrets that only the name before them reveals: `password=…`, `"api_key": "…"`.

Owns: the names that announce a secret, in several languages, and which values are not secrets (variables, templates,
types, calls in source code, the next word of a sentence). Refuses: to look at values without such a name.
"""

import re
from collections.abc import Iterator

from tailer.core.masking.detection import Rule, Span

NAMES = (
    "password", "passwd", "passphrase", "pwd", "_pass", "secret", "credential", "token", "sig",
    "authorization",
    "api_key", "api-key", "apikey", "api key", "accesskey", "access_key", "access-key", "access key",
    "accountkey", "account_key", "subscription-key", "subscription_key", "private_key", "privatekey",
    "secretkey", "secret_key", "secret key", "secret_access_key", "signing_key", "encryption_key",
    "master_key", "masterkey", "license_key", "auth_key",
    "passwort", "kennwort", "contraseña", "mot de passe", "senha", "wachtwoord", "hasło", "lösenord",
    "parola", "şifre", "mật khẩu", "пароль", "密码", "密碼", "口令", "パスワード", "비밀번호", "كلمة المرور",
)  # fmt: skip
SEPARATED = re.compile(
    r"(?P<name>" + "|".join(sorted(map(re.escape, NAMES), key=len, reverse=True)) + r")[0-9]{0,2}"
    r"(?P<separator>\\{0,3}[\"'`\]]{0,2}[ \t]{0,4}(?::=|=>|[:=\uff1a])[ \t]{0,4}|>(?=[^<>\n]{1,256}</)"
    r"|[ \t]{1,4}(?:is|ist|lautet|est|es|é|è|是|to)[ \t]{1,4}|[は是为為][ ]?)",
    re.IGNORECASE,
)
# A command line option: the value comes after a blank.
OPTION = re.compile(r"--[A-Za-z-]{0,24}\Z")
OPTION_LOOKBACK = 32
QUERY_LOOKBACK = 64
OPTION_BLANK = re.compile(r"(?P<name>[\w-]+)(?P<separator>[ \t]{1,4})(?![-\s])")
NAME_AHEAD = re.compile("(?=" + "|".join(map(re.escape, NAMES)) + ")")
SHORT_LENGTH = 64
NAME_AT_END = re.compile(r"(?P<name>" + "|".join(map(re.escape, NAMES)) + r")[0-9]{0,2}\Z", re.IGNORECASE)
KEY_CUE = re.compile(
    r"(?:mistral|azure|openai|cohere|twilio|together|heroku|datadog|deepseek|deepl|fireworks"
    r"|api|access|auth|secret|account|subscription)[^\n]{0,24}?(?:key|token|secret|clé|schlüssel|clave|chave|ключ|密钥|キー)"
    r"[^\n0-9]{0,24}\Z",
    re.IGNORECASE,
)
SHORTEST_KEY = 32
KEY_RUN = re.compile(rf"(?<![A-Za-z0-9_/+.-])[A-Za-z0-9]{{{SHORTEST_KEY},128}}(?![A-Za-z0-9_/+.-])")
KEY_LOOKBACK = 64

QUOTED = re.compile(r"(?P<quote>\\{0,3}[\"'`])(?P<value>(?:(?!(?P=quote))[^\n]){1,512})(?P=quote)")
UNQUOTED = re.compile(r"[^\s\"'`,;\uff0c\u3002\uff1b]{1,512}")
CODE = re.compile(
    r"[A-Za-z_$][\w$]*(?:\??\.[A-Za-z_$][\w$]*)+[(\[;)]*\Z"
    r"|[A-Za-z_$@][\w.$]*[(\[{<]|[<{$\[(|&*%@]|%[({s]|\\|\.{2,}|[*xX•#_.-]+\Z"
    r"|process\.|os\.|self\.|env\."
)
NOT_SECRET = frozenset({
    "a", "an", "and", "any", "api-key", "api_key", "apikey", "are", "at", "await", "be", "been", "bool",
    "boolean", "bytes", "can", "changed", "changeme", "char", "const", "das", "debe", "default", "der",
    "die", "doit", "ein", "eine", "el", "empty", "enter", "error", "es", "est", "example", "expired",
    "falsch", "false", "field", "for", "from", "function", "hidden", "in", "incorrect", "input", "int",
    "integer", "invalid", "is", "ist", "it", "la", "label", "le", "least", "les", "let", "los", "masked",
    "may", "minimum", "missing", "muss", "must", "n/a", "new", "nicht", "nil", "no", "none", "not",
    "null", "number", "object", "oder", "of", "on", "optional", "optional[str", "or", "passwd",
    "password", "placeholder", "redacted", "required", "reset", "return", "secret", "secretstr", "should",
    "str", "string", "text", "that", "the", "this", "to", "todo", "token", "true", "type", "un", "und",
    "undefined", "une", "unknown", "unset", "value", "var", "varchar", "was", "will", "with", "wrong",
    "yes", "your",
})  # fmt: skip
SHORTEST_SECRET = 3
SHORTEST_TOKEN = 8
SHORTEST_SPOKEN = 6
CLOSERS = ")]}>.:"
UNSPACED_IS = frozenset("は是为為")


def find_closing_name(key: str) -> str | None:
    """The name that announces a secret and ends this key of a structured value, if there is one."""
    found = NAME_AT_END.search(key)
    return found["name"] if found is not None else None


def is_secret_value(value: str, name: str, *, certain: bool) -> bool:
    """Whether a value behind such a name is a secret; `certain`: quoting or syntax says it is a value."""
    bare = value.strip()
    if len(bare) < SHORTEST_SECRET or bare.lower().rstrip(CLOSERS + "!?") in NOT_SECRET or CODE.match(bare):
        return False
    has_digit = any(character.isdecimal() for character in bare)
    if name.lower() in {"token", "sig", "credential", "authorization", "access key", "secret key"}:
        return len(bare) >= SHORTEST_TOKEN and has_digit
    if certain:
        # Words with blanks are a message about a secret, as in {"password": "Enter your password"}.
        return " " not in bare or has_digit
    return has_digit or not bare.replace("_", "").isalpha()


def _end_of_value(text: str, start: int, end: int, match: re.Match[str], *, spoken: bool) -> int:
    """Where a value without quotes ends, given the end of the characters that it could consist of."""
    separator = match["separator"]
    before = text[max(0, match.start() - QUERY_LOOKBACK) : match.start()]
    word = "" if before[-1:].isspace() else before.rpartition(" ")[2]
    if "?" in word or word.endswith("&"):
        end = start + len(text[start:end].partition("&")[0])
    if separator == ">":
        end = start + len(text[start:end].partition("<")[0])
    if separator.strip() in UNSPACED_IS:
        # In scripts without blanks between words, the value ends where its own script ends.
        end = next((index for index in range(start, end) if not text[index].isascii()), end)
    closers = CLOSERS + "!?" if spoken else CLOSERS
    while end > start and text[end - 1] in closers:
        end -= 1
    return end


def _unquoted_value(text: str, match: re.Match[str]) -> Span | None:
    found = UNQUOTED.match(text, match.end())
    if found is None:
        return None
    separator = match["separator"]
    is_option = separator.isspace()
    spoken = not is_option and not any(character in separator for character in ":=>\uff1a")
    start = found.start()
    end = _end_of_value(text, start, found.end(), match, spoken=spoken)
    value = text[start:end]
    if spoken and (len(value) < SHORTEST_SPOKEN or not any(character.isdecimal() for character in value)):
        return None
    # "name=value" without blanks is configuration; "name: word" at the end of a line is a note.
    ends_line = text[found.end() : found.end() + 1] in ("", "\n", "\r")
    certain = separator in ("=", ">") or is_option or (not spoken and "=" not in separator and ends_line)
    return (start, end) if is_secret_value(value, match["name"], certain=certain) else None


def _fold(text: str) -> str:
    """The text in lower case, character by character, so that positions stay the same."""
    lowered = text.lower()
    if len(lowered) == len(text):
        return lowered
    return "".join(character.lower() if len(character.lower()) == 1 else character for character in text)


def _find_names(text: str) -> list[int]:
    """Where names start. In a long text, searching for each name as a word is many times faster than one expression for
    all."""
    folded = _fold(text)
    if len(folded) < SHORT_LENGTH:
        return [match.start() for match in NAME_AHEAD.finditer(folded)]
    starts: set[int] = set()
    for name in NAMES:
        start = folded.find(name)
        while start >= 0:
            starts.add(start)
            start = folded.find(name, start + len(name))
    return sorted(starts)


def find_assigned_secrets(text: str) -> Iterator[Span]:
    """Values that follow a name and `=`, `:`, `=>` or, when they hold a digit, the word "is"."""
    position = 0
    for start in _find_names(text):
        if start < position:
            continue
        match = SEPARATED.match(text, start)
        if match is None and OPTION.search(text, max(0, start - OPTION_LOOKBACK), start):
            match = OPTION_BLANK.match(text, start)
        if match is None:
            continue
        position = match.end()
        quoted = QUOTED.match(text, position)
        span: Span | None
        if quoted is not None:
            span = quoted.span("value")
            if not is_secret_value(quoted["value"], match["name"], certain=True):
                span = None
        else:
            span = _unquoted_value(text, match)
        if span is not None and span[0] < span[1]:
            position = span[1]
            yield span
        else:
            yield position, position


def find_announced_keys(text: str) -> Iterator[Span]:
    """Runs of 32 or more letters and digits shortly after a phrase such as "my Mistral key"."""
    for match in KEY_RUN.finditer(text):
        value = match.group()
        if not (any(map(str.isdecimal, value)) and any(map(str.isalpha, value))):
            continue
        if KEY_CUE.search(text[max(0, match.start() - KEY_LOOKBACK) : match.start()]):
            yield match.span()


def _announces_key(before: str) -> bool:
    return KEY_CUE.search(before[-KEY_LOOKBACK:]) is not None


RULES: tuple[Rule, ...] = (
    Rule(
        name="secret",
        triggers=("pass", "key", *(name for name in NAMES if "pass" not in name and "key" not in name)),
        find=find_assigned_secrets,
        folded=True,
        shortest=min(map(len, NAMES)) + len("=") + SHORTEST_SECRET,
    ),
    Rule(
        name="api-key",
        triggers=("key", "token", "secret", "clé", "schlüssel", "clave", "chave", "ключ", "密钥", "キー"),
        find=find_announced_keys,
        folded=True,
        shortest=SHORTEST_KEY,
        is_announced=_announces_key,
    ),
)
