"""GitHub, and GitHub Enterprise: what of its API is asked, and what is made of its answers.

An answer is read leniently (keys that are not known are ignored) and completely: what lacks something that we need is
half an answer, and that is none. Sources: https://docs.github.com/en/rest, and its description in @octokit/openapi.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import time
from collections.abc import Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from refinery.core.pullviews import Pull, PullState, Remark
from refinery.hosts.answers import calls_us, json_of, remark, rows_of
from refinery.hosts.answers import number as _number
from refinery.hosts.answers import text as _text
from refinery.hosts.base import HostUnknown, Offer, Polled, Seen, Status
from refinery.hosts.reading import MOST, PAGE, Reading

if TYPE_CHECKING:
    import httpx
    from githubkit import GitHub

PAGES = 10  # of what has changed: what is longer is not read to its end
REMARKS, CALLS = 100, 200
LONG = 8_000  # characters of a review's words
STATUS_TEXT = 140
OVERLAP = dt.timedelta(minutes=2)  # of two looks at comments: clocks differ
_NOTHING = Pull(0, "", "", "", "", "", "", PullState.OPEN)  # what is known of one that was never read
_READY = """mutation($id: ID!) {
  markPullRequestReadyForReview(input: {pullRequestId: $id}) { pullRequest { isDraft } } }"""


class GitHubHost:
    """One repository of a GitHub."""

    def __init__(self, client: GitHub[Any], repository: str) -> None:
        self.client = client
        self.repository = repository
        self.place = f"/repos/{repository}"
        self._now = dt.datetime.now(dt.UTC)  # by the host's clock, as soon as it has answered

    # -- reading --

    def poll(self, seen: Seen) -> Polled:
        """See `Host`: the latest changed pull requests, and the latest comments of the repository."""
        etags = dict(seen.etags)
        pulls: dict[int, tuple[str, str]] = {}
        wanted = {"state": "all", "sort": "updated", "direction": "desc"}
        before = etags.get("until", "")
        for row in self._changed("pulls", f"{self.place}/pulls", wanted, etags):
            updated = _text(row, "updated_at")
            if before and updated < before:
                break
            pulls[_number(row, "number")] = updated, _text(row, "head", "sha")
        etags["until"] = max([before, *(updated for updated, _ in pulls.values())])
        return Polled(etags, pulls, frozenset(self._calls(etags)))

    def _calls(self, etags: dict[str, str]) -> Iterator[int]:
        """The pull requests with a new comment that calls us. Since when is told by GitHub's clock, not by ours; what
        is seen a little late is not missed, and what was seen before is known by its id."""
        since = self._now
        if etags.get("said"):
            since = dt.datetime.fromisoformat(etags["said"])
        known = set(etags.get("calls", "").split(","))
        wanted = {"sort": "updated", "direction": "desc", "since": f"{since - OVERLAP:%Y-%m-%dT%H:%M:%SZ}"}
        latest, recent = since, []
        for row in self.pages(f"{self.place}/issues/comments", wanted):
            latest = max(latest, dt.datetime.fromisoformat(_text(row, "updated_at")))
            if calls_us(row) and "/pull/" in _text(row, "html_url"):
                recent.append(str(_number(row, "id")))
                if recent[-1] not in known:
                    yield int(_text(row, "issue_url").rpartition("/")[2])
        etags["said"], etags["calls"] = latest.isoformat(), ",".join(recent[:CALLS])

    def _changed(self, name: str, path: str, wanted: Mapping[str, Any], etags: dict[str, str]) -> Iterator[Any]:
        """The rows of a list, unless it is as it was when its ETag was kept."""
        found = self.ask_since(path, etags.get(name, ""), **wanted, per_page=PAGE)
        if found.status_code == 304:
            return
        rows = rows_of(found)
        etags[name] = found.headers.get("etag", "")[:200]
        yield from rows
        if len(rows) == PAGE:
            yield from self.pages(path, wanted, first=2)

    def pages(self, path: str, wanted: Mapping[str, Any], first: int = 1, most: int = PAGES) -> Iterator[Any]:
        """The rows of a list, page by page, as far as it is read."""
        for page in range(first, most + 1):
            rows = rows_of(self._ask("GET", path, params={**wanted, "per_page": PAGE, "page": page}))
            yield from rows
            if len(rows) < PAGE:
                return

    def read(self, number: int, known: Pull | None = None) -> Pull:
        """See `Host`. What is as it was (304) costs nothing of what GitHub lets us ask in an hour."""
        place = f"{self.place}/pulls/{number}"
        row = self._object("GET", place)
        asked = Reading(self, known or _NOTHING)
        reviews = asked.reviews(f"{place}/reviews")
        commands = asked.commands(f"{self.place}/issues/{number}/comments")
        head, base = _text(row, "head", "sha"), _text(row, "base", "ref")[:250]
        authors, authors_known = asked.authors(f"{place}/commits", head, base)
        state, merged_as = PullState.OPEN, ""
        if row.get("merged"):
            state, merged_as = PullState.MERGED, str(row.get("merge_commit_sha") or "")
        elif _text(row, "state") == "closed":
            state = PullState.CLOSED
        return Pull(
            number=_number(row, "number"),
            head=head,
            head_repo=str(((row["head"].get("repo") or {}).get("full_name")) or "")[:200],
            branch=_text(row, "head", "ref")[:250],
            base=base,
            title=_text(row, "title")[:300],
            author=_text(row, "user", "login")[:100],
            state=state,
            node=_text(row, "node_id")[:200],
            url=_text(row, "html_url")[:500],
            draft=bool(row.get("draft")),
            mergeable=row.get("mergeable"),
            merge_sha=merged_as[:64],
            authors=authors,
            authors_known=authors_known,
            labels=tuple(str(one.get("name"))[:100] for one in row.get("labels") or [])[:50],
            reviews=reviews,
            commands=commands,
            whole=asked.whole,
            etags=asked.etags,
        )

    def words(self, number: int, review: int) -> tuple[str, Sequence[Remark]]:
        """See `Host`."""
        place = f"{self.place}/pulls/{number}"
        found = next((r for r in self.pages(f"{place}/reviews", {}, most=MOST) if r.get("id") == review), None)
        if found is None:
            raise HostUnknown("gone", f"pull request {number} has no review {review} any more")
        said = self.pages(f"{place}/comments", {}, most=MOST)
        lines = [c for c in said if c.get("pull_request_review_id") == review]
        return str(found.get("body") or "")[:LONG], [remark(c) for c in lines[:REMARKS]]

    # -- acting: each looks before it acts, for it may be done twice --

    def offer(self, offer: Offer) -> int:
        """See `Host`."""
        owner = self.repository.partition("/")[0]
        wanted = {"state": "open", "head": f"{owner}:{offer.branch}", "base": offer.base}
        for row in self.pages(f"{self.place}/pulls", wanted):
            return _number(row, "number")
        told = {"title": offer.title, "head": offer.branch, "base": offer.base, "body": offer.body}
        try:
            return self._make(told | {"draft": offer.draft})
        except HostUnknown as error:
            if error.kind != "refused" or not offer.draft:
                raise
            return self._make(told)  # private repositories of some plans know no drafts

    def _make(self, told: Mapping[str, Any]) -> int:
        return _number(self._object("POST", f"{self.place}/pulls", json=told), "number")

    def ready(self, pull: Pull) -> None:
        """See `Host`; the one thing that only GraphQL can do."""
        if pull.draft:
            self._guarded(lambda: self.client.graphql(_READY, {"id": pull.node}))

    def report(self, sha: str, statuses: Sequence[Status]) -> None:
        """See `Host`."""
        for one in statuses:
            told = {"state": one.state, "context": one.context[:100], "description": one.text[:STATUS_TEXT]}
            if one.url:
                told["target_url"] = one.url
            self._ask("POST", f"{self.place}/statuses/{sha}", json=told)

    def comment(self, number: int, marker: str, text: str, known: int) -> int:
        """See `Host`."""
        if not known:
            said = self.pages(f"{self.place}/issues/{number}/comments", {}, most=MOST)
            known = next((_number(c, "id") for c in said if marker in (c.get("body") or "")), 0)
        if known:
            try:
                self._ask("PATCH", f"{self.place}/issues/comments/{known}", json={"body": text})
                return known
            except HostUnknown as error:
                if error.kind not in ("gone", "forbidden"):  # somebody has deleted it, or it is not ours
                    raise
        made = self._object("POST", f"{self.place}/issues/{number}/comments", json={"body": text})
        return _number(made, "id")

    def close(self, number: int) -> None:
        """See `Host`."""
        if _text(self._object("GET", f"{self.place}/pulls/{number}"), "state") == "open":
            self._ask("PATCH", f"{self.place}/pulls/{number}", json={"state": "closed"})

    def lacking(self) -> list[str]:
        """See `Host`."""
        told = self._object("GET", self.place)
        rights = told.get("permissions")
        if rights is not None and not rights.get("push"):
            return [f"it may not write to {self.repository} (contents, pull requests, commit statuses: write)"]
        return []

    # -- asking --

    def _ask(self, method: str, path: str, **words: Any) -> httpx.Response:
        found: httpx.Response = self._guarded(lambda: self.client.request(method, path, **words)).raw_response
        if found.has_redirect_location:
            raise HostUnknown("gone", f"{self.repository} has moved: set [pr] repository, or the rig's remote, anew")
        with contextlib.suppress(KeyError, ValueError, TypeError):
            self._now = parsedate_to_datetime(found.headers["date"])
        return found

    def ask_since(self, path: str, etag: str, **params: Any) -> httpx.Response:
        """What is there, or 304 where it is as it was under this ETag."""
        headers = {}
        if etag:
            headers["If-None-Match"] = etag
        return self._ask("GET", path, params=params, headers=headers)

    def _object(self, method: str, path: str, **words: Any) -> dict[str, Any]:
        found = json_of(self._ask(method, path, **words))
        if not isinstance(found, dict):
            raise HostUnknown("down", "GitHub's answer is not the object that was asked for")
        return found

    def _guarded(self, ask: Any) -> Any:
        """What is asked; each way in which it can fail as one HostUnknown."""
        from githubkit.exception import GitHubException, GraphQLFailed, RequestFailed

        try:
            return ask()
        except RequestFailed as error:
            raise _unknown(error.response.raw_response) from error
        except GraphQLFailed as error:
            raise HostUnknown("refused", f"GitHub refuses: {error.response.errors}") from error
        except GitHubException as error:
            why = getattr(error, "exc", error)
            if isinstance(why, HostUnknown):
                raise why from error
            raise HostUnknown("down", f"GitHub does not answer: {_line(why)}") from error
        except HostUnknown:
            raise
        except ValueError as error:  # a key that is none, an answer that is no JSON
            raise HostUnknown("denied", f"the credential for GitHub cannot be used: {_line(error)}") from error


def _unknown(response: httpx.Response) -> HostUnknown:
    """What an error says. 403 is a limit or a lack of rights: its headers tell which."""
    status, headers = response.status_code, response.headers
    try:
        told = response.json()
        said = _line("; ".join([str(told["message"]), *(str(e.get("message") or e) for e in told.get("errors") or [])]))
    except (ValueError, KeyError, TypeError, AttributeError):
        said = f"status {status}"
    wait = 0.0
    if headers.get("retry-after", "").isdigit():
        wait = float(headers["retry-after"])
    elif headers.get("x-ratelimit-remaining") == "0" and headers.get("x-ratelimit-reset", "").isdigit():
        wait = max(float(headers["x-ratelimit-reset"]) - time.time(), 1.0)
    if status == 429 or (status == 403 and (wait or "rate limit" in said.lower())):
        return HostUnknown("limited", f"GitHub lets us ask no more for now: {said}", wait or 60.0)
    kinds = {401: "denied", 403: "forbidden", 404: "gone", 410: "gone"}
    if status >= 500:
        return HostUnknown("down", f"GitHub answers {status}: {said}", wait)
    return HostUnknown(kinds.get(status, "refused"), f"GitHub refuses ({status}): {said}")


def _line(error: object) -> str:
    return " ".join(str(error).split())[:400] or type(error).__name__
