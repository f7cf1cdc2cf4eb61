"""Make a statement that gives two answers shorter, as long as it still does."""

import re

TOKEN = re.compile(r"'(?:[^']|'')*'(?:::[\w\[\]]+)?|\w+(?:\.\w+)*(?:::[\w\[\]]+)?|\s+|.", re.S)


def minimise(statement, differs, tries=400):
    """differs(statement) says whether a candidate still shows the difference."""
    tokens = TOKEN.findall(statement.sql)
    size = max(1, len(tokens) // 2)
    while size >= 1 and tries > 0:
        start, shorter = 0, False
        while start < len(tokens) and tries > 0:
            candidate = tokens[:start] + tokens[start + size:]
            tries -= 1
            if balanced(candidate) and differs(statement._replace(sql="".join(candidate))):
                tokens, shorter = candidate, True
            else:
                start += size
        if not shorter or size > 1:
            size = size // 2 if not shorter else size
        if size == 0:
            break
    return statement._replace(sql="".join(tokens))


def balanced(tokens):
    depth = 0
    for token in tokens:
        depth += {"(": 1, "[": 1, ")": -1, "]": -1}.get(token, 0)
        if depth < 0:
            return False
    return depth == 0
