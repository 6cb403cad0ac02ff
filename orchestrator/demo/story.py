"""The story the demo plays: two customers, a private repository each, and three small tasks in them.

Pure: what is in the repositories, what the agents are asked, and how one recognises that they did it. `act.py` plays
it, `proof.py` checks it. A scripted model gets its script within the same message that a real model gets as prose.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.demo.script import write_script
from orchestrator.domain.secrets import SecretText

#: The name under which each tenant stores a secret of its own.
SECRET_NAME = "DEPLOY_KEY"
#: Where an agent proves that it saw its tenant's value, without giving the value away.
PROOF_FILE = "deploy-key.sha256"
PROVIDER = "github"

_TEST = '''"""Tests of {module}."""

import unittest

from shop.{module} import {function}


class Test(unittest.TestCase):
    def test_{function}(self):
        self.assertEqual({function}({arguments}), {expected})
'''


@dataclass(frozen=True)
class Task:
    """One mistake in the repository, and the edit that mends it."""

    name: str
    wish: str
    path: str
    wrong: str
    right: str
    test: str
    subject: str


TOTAL = Task(
    name="total",
    wish="The function `total` in `shop/prices.py` forgets how many of each article were ordered.",
    path="shop/prices.py",
    wrong="sum(price for price, count in lines)",
    right="sum(price * count for price, count in lines)",
    test="tests.test_prices",
    subject="Count every article in the total",
)
GREETING = Task(
    name="greeting",
    wish="The function `greeting` in `shop/letters.py` should answer like `Hello, Ada!`.",
    path="shop/letters.py",
    wrong='"Hello " + name',
    right='f"Hello, {name}!"',
    test="tests.test_letters",
    subject="Greet with a comma and an exclamation mark",
)
MISSING = Task(
    name="missing",
    wish="The function `missing` in `shop/stock.py` answers what is there instead of what is not.",
    path="shop/stock.py",
    wrong="set(wanted) & set(present)",
    right="set(wanted) - set(present)",
    test="tests.test_stock",
    subject="Name what is missing",
)

#: What every private repository holds at first; each task's test fails in it.
FILES: Mapping[str, str] = {
    "README.md": "# Shop\n\nA very small shop.\n",
    ".gitignore": "__pycache__/\n",
    "shop/__init__.py": "",
    "shop/prices.py": '"""What an order costs."""\n\n\n'
    "def total(lines):\n    return sum(price for price, count in lines)\n",
    "shop/letters.py": '"""What customers read."""\n\n\ndef greeting(name):\n    return "Hello " + name\n',
    "shop/stock.py": '"""What lies in the store."""\n\n\n'
    "def missing(wanted, present):\n    return sorted(set(wanted) & set(present))\n",
    "tests/__init__.py": "",
    "tests/test_prices.py": _TEST.format(
        module="prices", function="total", arguments="[(250, 2), (99, 1)]", expected="599"
    ),
    "tests/test_letters.py": _TEST.format(
        module="letters", function="greeting", arguments='"Ada"', expected='"Hello, Ada!"'
    ),
    "tests/test_stock.py": _TEST.format(
        module="stock", function="missing", arguments='["tea", "milk"], ["milk"]', expected='["tea"]'
    ),
}


@dataclass(frozen=True)
class Customer:
    """One tenant with one user and one private repository; `tasks` are worked on at the same time."""

    name: str
    user: str
    repository: str
    tasks: tuple[Task, ...]


CUSTOMERS = (
    Customer(name="Acme", user="Ada", repository="acme/shop", tasks=(TOTAL, GREETING)),
    Customer(name="Globex", user="Grace", repository="globex/shop", tasks=(MISSING,)),
)


def proof(secret: SecretText) -> str:
    """What the proof file holds when the agent saw `secret`: enough to recognise it, nothing to use."""
    return hashlib.sha256(secret.open().encode()).hexdigest()[:16]


def branch(conversation: str) -> str:
    """The branch that a conversation pushes to."""
    return f"agent/{conversation[:8]}"


def prose(task: Task, *, clone_url: str, conversation: str) -> str:
    """What a person would ask for; enough for a real model."""
    return (
        f"Please mend a small mistake. Clone {clone_url} into the folder `app` of your working directory and make the "
        f"branch `{branch(conversation)}`. {task.wish} Mend it with your file editor, then run "
        f"`python3 -m unittest {task.test}` in the folder until it passes. Also write the first 16 hexadecimal digits "
        f"of the SHA-256 of the environment variable {SECRET_NAME} into the file `{PROOF_FILE}` at the top of the "
        f"repository (a single line; never print the variable itself). Commit everything with the subject "
        f"`{task.subject}` and push the branch to origin. Git finds its own credentials. Then finish."
    )


def script(task: Task, *, clone_url: str, conversation: str, folder: str) -> str:
    """The same task as answers for the scripted model; `folder` is the runtime's working directory."""
    digest = f'hashlib.sha256(os.environ["{SECRET_NAME}"].encode()).hexdigest()[:16]'
    identity = '-c user.name="Nestor agent" -c user.email=agent@example.invalid'
    steps: Sequence[Mapping[str, Any]] = (
        {
            "text": "I clone the repository and make the branch.",
            **_run(
                "Clone the private repository",
                f"git clone --quiet {clone_url} app && cd app && git switch --quiet --create {branch(conversation)}",
            ),
        },
        _run(
            "Prove that the secret is here",
            f"python3 -c 'import hashlib, os; print({digest})' > {PROOF_FILE} && cat {PROOF_FILE}",
        ),
        {
            "tool": "file_editor",
            "args": {
                "command": "str_replace",
                "path": f"{folder.rstrip('/')}/app/{task.path}",
                "old_str": task.wrong,
                "new_str": task.right,
                "summary": f"Mend {task.path}",
                "security_risk": "LOW",
            },
        },
        _run("Run the test", f"python3 -m unittest {task.test}"),
        _run(
            "Commit and push",
            f'git add --all && git {identity} commit --quiet --message "{task.subject}" && '
            "git push --quiet origin HEAD && git log -1 --format=%h",
        ),
        {
            "tool": "finish",
            "args": {"message": f"{task.subject}: done, tested and pushed.", "summary": "Say what was done"},
        },
    )
    return write_script(steps)


def _run(summary: str, command: str) -> dict[str, Any]:
    return {"tool": "terminal", "args": {"command": command, "summary": summary, "security_risk": "LOW"}}
