"""Damage to files, as accidents and attackers cause it; equal seeds give equal damage."""

import json
import random
from collections.abc import Callable
from typing import Any

NASTY: list[Any] = [
    *("", " ", "x", "-1", "--5", "0", "1e308", "-1e308", "1e17", "nan", "inf", "1_0", "٣", "0x10"),
    *(
        "9" * 5000,
        "a" * 100_000,
        "\x1b[31m",
        "\u202e",
        "$\\frac{$",
        "_x",
        "..",
        "\x00",
        "100000000",
    ),
    *(None, True, False, -1, 0, 3, 10**18, 10**400, 1.5, 1e300, float("nan"), float("inf")),
    *([], {}, [[]], [1], {"a": 1}, ["\ud800"], {"": {}}, "os:x", "this:x", "\ud800"),
]


def mutate_bytes(content: bytes, rng: random.Random) -> bytes:
    """Damage that knows nothing of the format."""
    size = len(content)
    at = rng.randrange(size + 1)
    end = min(size, at + rng.randrange(1, 200))
    choices: list[Callable[[], bytes]] = [
        lambda: content[:at],
        lambda: content[:at] + content[end:],
        lambda: content[:at] + bytes(end - at) + content[end:],
        lambda: content[:at] + content[at:end] * 2 + content[end:],
        lambda: content[:at] + rng.randbytes(20) + content[at:],
        lambda: content + rng.randbytes(50),
        lambda: rng.randbytes(rng.randrange(300)),
        lambda: b"",
        lambda: b"\xef\xbb\xbf" + content,
        lambda: content.decode("latin-1").encode("utf-16"),
        lambda: content.replace(b"\n", b"\r"),
    ]
    if size:
        flipped = bytearray(content)
        flipped[at % size] ^= 1 << rng.randrange(8)
        choices += [lambda: bytes(flipped)] * 3
    return rng.choice(choices)()


def mutate_csv(content: bytes, rng: random.Random) -> bytes:
    """Damage to a table: cells, columns, headers and rows."""
    rows = [line.split(",") for line in content.decode("utf-8").splitlines()]
    nasty = str(rng.choice([one for one in NASTY if isinstance(one, str) and one != "\ud800"]))
    row, column = rng.randrange(len(rows)), rng.randrange(len(rows[0]))
    kind = rng.randrange(8)
    if kind == 0:
        rows[row][column % len(rows[row])] = nasty
    elif kind == 1:
        for each in rows[1:]:
            each[column % len(each)] = nasty
    elif kind == 2:
        rows[0][column] = nasty
    elif kind == 3:
        rows = [[cell for at, cell in enumerate(each) if at != column] for each in rows]
    elif kind == 4:
        rows.insert(row, list(rows[row]))
    elif kind == 5:
        del rows[row]
    elif kind == 6:
        rows[row] = [*rows[row], "1"]
    else:
        rows[0][column] = f"{rows[0][column].rpartition('_')[0]}_x"
    return "".join(f"{','.join(each)}\n" for each in rows).encode("utf-8", "surrogatepass")


TOML_VALUES = (
    *("nan", "-inf", "1979-05-27T07:32:00Z", "07:32:00", "{ a = 1 }", "[[1]]", "true", "''"),
    *("9" * 5000, "0x10", '"os:x"', '"\\u001b[31m"', "[" * 5000 + "]" * 5000, "{ a = " * 3000),
)


def mutate_toml(content: bytes, rng: random.Random) -> bytes:
    """Damage to a TOML file: values of other types, missing, repeated and unknown entries."""
    lines = content.decode("utf-8").splitlines()
    at = rng.randrange(len(lines))
    name = lines[at].partition("=")[0]
    kind = rng.randrange(6)
    if kind <= 2:
        lines[at] = f"{name}= {rng.choice(TOML_VALUES)}"
    elif kind == 3:
        del lines[at]
    elif kind == 4:
        lines.insert(at, lines[rng.randrange(len(lines))])
    else:
        lines.insert(at, rng.choice(["x = 1", "[run]", "[x]", "[[task_options]]", "seed = -1"]))
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogatepass")


def mutate_json(content: bytes, rng: random.Random) -> bytes:
    """Damage to a JSON file: values of other types, missing and additional keys, deep nesting."""
    value = json.loads(content)
    holder, key = rng.choice(_places(value))
    kind = rng.randrange(6)
    if kind <= 2:
        holder[key] = rng.choice(NASTY)
    elif kind == 3:
        del holder[key]
    elif kind == 4 and isinstance(holder, dict):
        holder[str(rng.choice(["extra", "\x1b", "", "format", "iterations"]))] = rng.choice(NASTY)
    else:
        depth = rng.choice([30, 900, 5000, 100_000])
        return content.replace(b"{", b'{"deep": ' + b"[" * depth + b"]" * depth + b", ", 1)
    return json.dumps(value).encode("utf-8")


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every item of nested lists and mappings, as holder and key."""
    keys = list(value) if isinstance(value, dict) else range(len(value))
    found = [(value, key) for key in keys]
    for key in keys:
        if isinstance(value[key], dict | list) and value[key]:
            found += _places(value[key])
    return found
