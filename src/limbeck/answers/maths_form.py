r"""The normal form of a `math` answer: \dfrac{1}{2}, 1/2 and ½ are one, and so are 1,234 and 1{,}234.

It only rewrites signs; that 2/4 is 1/2 is arithmetic, of `limbeck.answers.maths_same`.
"""

import re
import unicodedata
from fractions import Fraction

MAX_CHARS = 500
"""Longer answers keep their signs: nothing that long is a number with a unit."""
SIGNS = str.maketrans(
    dict.fromkeys("\u2212\u2013\u2010\u2011", "-")
    | dict.fromkeys("\u00f7\u2044\u2215", "/")
    | dict.fromkeys("\u22c5\u00b7", "\\cdot ")
    | {"\u00d7": "\\times ", "\u03c0": "\\pi ", "\u221e": "\\infty ", "\u221a": "\\sqrt ", "\u00b1": "\\pm "}
    | {"\u2264": "\\le ", "\u2265": "\\ge ", "\u2260": "\\ne ", "\u2248": "\\approx ", "\u222a": "\\cup "}
    | {"\u00bd": " 1/2", "\u00bc": " 1/4", "\u00be": " 3/4", "\u2153": " 1/3", "\u2154": " 2/3"}
    | {"\u00b0": "^\\circ ", "\u00b2": "^2", "\u00b3": "^3", "\u2019": "'", "\uff05": "%"}
)
WRAPPED = re.compile(
    r"\$+(?P<a>[^$]*[^$\\])\$+|\\\((?P<b>.*)\\\)|\\\[(?P<c>.*)\\\]|\*+(?P<d>[^*]+)\*+|`+(?P<e>[^`]+)`+"
    r"|\"(?P<f>[^\"]+)\"|'(?P<g>[^']+)'|\\(?:boxed|text|textbf|mathrm|mathbf|mbox)\s*\{(?P<h>[^{}]*)\}",
    re.DOTALL,
)
COMMANDS = (
    (r"\\(?:left|right|displaystyle|textstyle|limits)(?![A-Za-z])\.?|\\[bB]igg?[lr]?(?![A-Za-z])|\\!", ""),
    (r"\{,\}|\\,(?=\d{3}(?!\d))", ","),
    (r"(?<!\\)\\[,;: ]|~|\\q?quad(?![A-Za-z])|\\\\$|[\u00a0\u2009\u202f]", " "),
    (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
    (r"\\(?:leq|leqslant)(?![A-Za-z])", r"\\le "),
    (r"\\(?:geq|geqslant)(?![A-Za-z])", r"\\ge "),
    (r"\\neq(?![A-Za-z])", r"\\ne "),
    (r"\\\$|[$\u20ac\u00a3\u00a5\u20b9]|\\(?:euro|pounds)(?![A-Za-z])", ""),
    (r"\\%", "%"),
    (r"\s*\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z]))|\\degree(?![A-Za-z])", r" degrees "),
    (r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mbox|operatorname)\s*\{([^{}]*)\}", r" \1 "),
)
THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:(?:,\d{3})+|(?: \d{3})+)(?![\d,])")
NUMBER = r"[-+]?(?:\d+(?:\.\d+)?|\.\d+)"
SCALES = {"thousand": 3, "million": 6, "billion": 9, "trillion": 12}
SCALED = re.compile(rf"({NUMBER})\s*({'|'.join(SCALES)})s?\b.*", re.IGNORECASE)
PERCENT = re.compile(r"\s*(?:%|per ?cent\b|percentage points?\b).*", re.IGNORECASE)
FUNCTIONS = {
    "sqrt",
    "sin",
    "cos",
    "tan",
    "cot",
    "sec",
    "csc",
    "log",
    "ln",
    "exp",
    "pi",
    "arcsin",
    "arccos",
    "arctan",
}
FUNCTIONS |= {"max", "min", "gcd", "lcm", "mod", "or", "and", "to", "if", "for", "cup", "infty", "infinity"}
VALUE = re.compile(r"(?:[-+\d.,/^(){}%\s]|\\(?:frac|sqrt|pi|cdot|times)(?![A-Za-z]))+")
UNIT = re.compile(
    r"(?:(?<=\s)[mgshLlNJWVKCF]|[A-Za-z]{2,})(?:\.|\b)(?:\s*\^\s*\{?-?\d\}?)?"
    r"(?:\s*(?:/|\bper\b|\\cdot|\s)\s*(?:[A-Za-z]+\.?|\([A-Za-z ]+\))(?:\s*\^\s*\{?-?\d\}?)?)*"
    r"\s*(?:\([A-Za-z ]+\))?"
)
ASSIGNED = re.compile(r"(?:[A-Za-z](?:_\w|_\{\w+\}|'|\([a-z]\))?|[A-Za-z][a-z ]+)\s*=\s*(?P<value>[^=<>]+)")
MIXED = re.compile(r"([-+]?)(\d+)(?:\s+(\d+)/(\d+)|\s*\\frac\{(\d+)\}\{(\d+)\})")
FRACTION = re.compile(r"([-+]?)\\frac\{([-+]?\d+)\}\{(\d+)\}")
ENVIRONMENT = re.compile(r"\\(?:begin|end)\{\w+\*?\}(?:\{[clr|]+\})?")
WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")


def normal_form(answer: str, case_sensitive: bool) -> str:
    """A formula without spaces, units, currencies and thousands separators; words with single spaces."""
    text = " ".join(unicodedata.normalize("NFKC", answer.translate(SIGNS)).split())
    if len(text) > MAX_CHARS:
        return text
    text = _unwrapped(text)
    for sign, plain in COMMANDS:
        text = re.sub(sign, plain, text)
    text = _unwrapped(text)
    if not text.startswith(("(", "[", "\\{")):  # (1,234) is a point
        text = THOUSANDS.sub(lambda match: re.sub("[ ,]", "", match[0]), text)
    if match := ASSIGNED.fullmatch(text):
        text = match["value"].strip()
    text = _without_unit(text)
    if is_words(text):
        return text if case_sensitive else text.lower()
    return _number(_formula(text))


def is_words(text: str) -> bool:
    """Whether a text has words in it that belong to no formula: algebra would take them for products."""
    bare = ENVIRONMENT.sub("", text)
    return any(word.lower() not in FUNCTIONS for word in WORD.findall(bare))


def _unwrapped(text: str) -> str:
    """A text without signs around it that mean nothing, and without the mark that ended its sentence."""
    while True:
        bare = text.strip().rstrip(".,;:").strip()  # 5! is 120
        if (match := WRAPPED.fullmatch(bare)) and match.lastgroup:
            bare = match[match.lastgroup].strip()
        if bare == text:
            return text
        text = bare


def _without_unit(text: str) -> str:
    """A value without its unit; million and its kin are counted in, and percent becomes a sign."""
    if match := SCALED.fullmatch(text):
        return _plain(Fraction(match[1]) * 10 ** SCALES[match[2].lower()])
    value = VALUE.match(text)
    if value is None or not re.search(r"\d", value[0]):
        return text
    rest = text[value.end() :]
    number = value[0].strip()
    if number.endswith("%") or PERCENT.fullmatch(rest):
        return number.removesuffix("%").strip() + "%"
    if value[0][-1] != " " and value[0].rstrip().endswith(("^", "(", "{")):
        return text
    unit = UNIT.fullmatch(text, value.end())
    if unit and not any(word.lower() in FUNCTIONS for word in WORD.findall(rest)):
        return number
    return text


def _formula(text: str) -> str:
    """A formula without spaces, in one way of writing."""
    text = re.sub(r"\s*,?\s*\b(?:or|and)\b\s*", ",", text)
    text = re.sub(r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}", text)
    text = re.sub(r"\\?sqrt\s*(?:\(([^()]*)\)|(\d+|[a-z]))", lambda m: f"\\sqrt{{{m[1] or m[2]}}}", text)
    text = re.sub(r"(?<![\\A-Za-z])(pi|infty|sin|cos|tan|log|ln)(?![A-Za-z])", r"\\\1 ", text)
    text = re.sub(r"(?<![\\A-Za-z])infinity\b", r"\\infty", text)
    if match := MIXED.fullmatch(text):
        sign, whole, top, bottom = match[1], match[2], match[3] or match[5], match[4] or match[6]
        return f"{sign.strip('+')}{int(whole) * int(bottom) + int(top)}/{bottom}"
    if match := FRACTION.fullmatch(text.replace(" ", "")):
        minus = (match[1] == "-") != (match[2][0] == "-")
        return f"{'-' * minus}{match[2].lstrip('+-')}/{match[3]}"
    text = re.sub(r"(\\[A-Za-z]+) +([A-Za-z])", "\\1\0\\2", text)  # \pi r is not \pir
    return text.replace(" ", "").replace("\0", " ")


def _number(text: str) -> str:
    """A number without a plus and idle zeros; anything else as it is."""
    match = re.fullmatch(r"([-+]?)(\d*)(?:\.(\d*))?(%?)", text, re.ASCII)
    if match is None or not (match[2] or match[3]):
        return re.sub(rf"^({NUMBER})[eE]([-+]?\d+)$", r"\1\\times10^{\2}", text)
    digits = match[2].lstrip("0") or "0"
    decimals = (match[3] or "").rstrip("0")
    bare = f"{digits}.{decimals}" if decimals else digits
    return f"{'-' if match[1] == '-' and bare != '0' else ''}{bare}{match[4]}"


def _plain(value: Fraction) -> str:
    """A fraction of a power of ten as a decimal."""
    if value.denominator == 1:
        return str(value.numerator)
    places = len(str(value.denominator))
    return f"{float(value):.{places}f}".rstrip("0")
