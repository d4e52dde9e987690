"""One reading of a pull request on GitHub: what of it is as it was, who may write, whose words are kept.

What is as it was (304) costs nothing of what GitHub lets us ask in an hour. Only a list that is one page has an ETag
that says so of all of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from refinery.core.pullviews import Comment, Opinion, Pull, Review, Right
from refinery.hosts import answers
from refinery.hosts.base import HostUnknown

if TYPE_CHECKING:
    from refinery.hosts.github import GitHubHost

PAGE, MOST = 100, 50  # rows of a page; pages of a pull request's reviews or comments: what is longer is not read
REVIEWS, NOTES, COMMANDS, REFUSED = 100, 50, 50, 10
LOGINS = 200  # so many people of one pull request are asked for by their rights
OPINIONS = {
    "APPROVED": Opinion.APPROVE,
    "CHANGES_REQUESTED": Opinion.REQUEST_CHANGES,
    "COMMENTED": Opinion.COMMENT,
    "DISMISSED": Opinion.DISMISSED,
}
_RIGHTS = {"admin": Right.ADMIN, "write": Right.WRITE, "read": Right.READ, "none": Right.NONE}


class Reading:
    """What is read now, beside what it was `before`: `etags` are of what it is now; `whole` is False where something
    was not read to its end, or more people speak there than are asked for."""

    def __init__(self, host: GitHubHost, before: Pull) -> None:
        self.host, self.before = host, before
        self.etags: dict[str, str] = {}
        self.rights: dict[str, Right] = {}
        self.whole = True

    def reviews(self, path: str) -> tuple[Review, ...]:
        """The latest opinions of people who may write: strangers crowd nobody out."""
        rows = self._rows("reviews", path)
        found = list(self.before.reviews)
        if rows is not None:
            found = [self._review(row) for row in rows if row.get("state") in OPINIONS]
        said = [replace(one, right=self.right(one.by)) for one in found]
        found = [one for one in said if one.right.writes]
        if len(found) < len(said):  # who may write later is heard then
            self.etags.pop("reviews", None)
        self.whole = self.whole and sum(one.opinion != Opinion.COMMENT for one in found) <= REVIEWS
        return answers.latest(found, lambda one: one.opinion == Opinion.COMMENT, REVIEWS, NOTES)

    def commands(self, path: str) -> tuple[Comment, ...]:
        """The latest commands, and a few of those whose authors are to be told that they may not."""
        rows = self._rows("said", path)
        found = list(self.before.commands)
        if rows is not None:
            found = [self._command(row) for row in rows if answers.calls_us(row)]
        found = [replace(one, right=self.right(one.by)) for one in found]
        return answers.latest(found, lambda one: not one.right.writes, COMMANDS, REFUSED)

    def authors(self, path: str, head: str, base: str) -> tuple[tuple[str, ...], bool]:
        """Who wrote its commits, and whether that is known of all."""
        if (self.before.head, self.before.base) == (head, base) and self.before.authors_known:
            return self.before.authors, True
        return answers.authors(list(self.host.pages(path, {})))

    @staticmethod
    def _review(row: Mapping[str, Any]) -> Review:
        commit = str(row.get("commit_id") or "")[:64]
        return Review(answers.number(row, "id"), answers.login(row), OPINIONS[row["state"]], commit)

    @staticmethod
    def _command(row: Mapping[str, Any]) -> Comment:
        first = answers.text(row, "body").strip().split("\n", 1)[0][:300]
        return Comment(answers.number(row, "id"), answers.login(row), first)

    def _rows(self, name: str, path: str) -> Sequence[Mapping[str, Any]] | None:
        """The rows of a list; None where it is as it was. What is longer than a page is always read anew."""
        known = self.before.etags.get(name, "")
        found = self.host.ask_since(path, known, per_page=PAGE)
        if found.status_code == 304:
            self.etags[name] = known
            return None
        rows = answers.rows_of(found)
        if len(rows) < PAGE:
            self.etags[name] = found.headers.get("etag", "")[:200]
            return rows
        rows = [*rows, *self.host.pages(path, {}, first=2, most=MOST)]
        self.whole = self.whole and len(rows) < PAGE * MOST
        return rows

    def right(self, login: str) -> Right:
        """What somebody may do here, as the host says; asked once for each reading, and of so many people."""
        if not login:
            return Right.NONE
        if login not in self.rights:
            if len(self.rights) >= LOGINS:
                self.whole = False
                return Right.UNKNOWN
            self.rights[login] = self._right(login)
        return self.rights[login]

    def _right(self, login: str) -> Right:
        name = f"right {login}"
        said: tuple[Review | Comment, ...] = (*self.before.reviews, *self.before.commands)
        known = {one.by: one.right for one in said}
        etag = ""
        if login in known:
            etag = self.before.etags.get(name, "")
        try:
            found = self.host.ask_since(f"{self.host.place}/collaborators/{login}/permission", etag)
        except HostUnknown as error:
            if error.kind != "gone":  # an account that is no more
                raise
            return Right.NONE
        if found.status_code == 304:
            self.etags[name] = etag
            return known[login]
        told = answers.json_of(found)
        if not isinstance(told, dict):
            return Right.UNKNOWN
        self.etags[name] = found.headers.get("etag", "")[:200]
        return _RIGHTS.get(str(told.get("permission")), Right.UNKNOWN)
