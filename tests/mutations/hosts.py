"""What is promised of pull requests on a host."""

from __future__ import annotations

from tests.mutations.mutation import Mutation

RULES, HOOKS, GITHUB = "tests/unit/test_pull_rules.py", "tests/hosts/test_hooks.py", "tests/hosts/test_github.py"
READINGS = "tests/hosts/test_readings.py"

MUTATIONS = (
    Mutation(
        "a review by somebody who may only read, or whose right is not known, counts",
        "refinery/core/rules/pulls.py",
        "    return review.right.writes and not has_made",
        "    return not has_made",
        f"{RULES} -k may_write",
    ),
    Mutation(
        "somebody approves the commits that they have made",
        "refinery/core/rules/pulls.py",
        " and not has_made(review.by, pull)",
        "",
        f"{RULES} -k may_write",
    ),
    Mutation(
        "somebody approves what has authors whom nobody knows",
        "refinery/core/rules/pulls.py",
        "    return not pull.authors_known or login",
        "    return login",
        f"{RULES} -k nobody_approves",
    ),
    Mutation(
        "a comment that another has edited is a command",
        "refinery/hosts/answers.py",
        ' and text(row, "updated_at") == text(row, "created_at")',
        "",
        f"{GITHUB} -k commands_nothing",
    ),
    Mutation(
        "a late answer of the host takes back the last push",
        "refinery/executor/pulls.py",
        "            head = _head_of(rig, pull)\n",
        "            head = pull.head\n",
        f"{READINGS} -k git_has",
    ),
    Mutation(
        "strangers crowd out those who may write",
        "refinery/hosts/reading.py",
        "        found = [one for one in said if one.right.writes]\n",
        "        found = said\n",
        f"{READINGS} -k crowd",
    ),
    Mutation(
        "what lands does not wait for a host that does not say",
        "refinery/core/standing.py",
        "    if unknown := rig.unknown(now):\n",
        "    if (unknown := rig.unknown(now)) and False:\n",
        f"{RULES} -k lets_nothing_land",
    ),
    Mutation(
        "a host's word that it has merged is believed without git",
        "refinery/core/rules/pulls.py",
        "pull.state != PullState.MERGED or not pull.on_target or",
        "pull.state != PullState.MERGED or",
        f"{RULES} -k git_shows_it",
    ),
    Mutation(
        "a host in trouble is asked all the same",
        "refinery/core/rules/pulls.py",
        "        if rig.host.trouble or rig.problems:\n",
        "        if rig.problems:\n",
        f"{RULES} -k in_trouble",
    ),
    Mutation(
        "an account of the host is taken for the person of that name",
        "refinery/core/entryviews.py",
        "    if channel == HOST:\n",
        "    if False:\n",
        f"{RULES} -k nobodys_here",
    ),
    Mutation(
        "a hook is believed whoever has signed it",
        "refinery/hosts/hook.py",
        '    return hmac.compare_digest(due.encode(), signature.encode("utf-8", "replace"))',
        "    return bool(due)",
        f"{HOOKS} -k bad_signature",
    ),
    Mutation(
        "a credential goes over plain http to a place that the owner has not named",
        "refinery/hosts/opening.py",
        '            if request.url.scheme != "https" and not named:\n',
        "            if False:\n",
        f"{GITHUB} -k allowed_places",
    ),
    Mutation(
        "each change of phase says all statuses again",
        "refinery/core/rules/pullreports.py",
        "    fresh = tuple(one for one in statuses if _is_news(row, pull.head, one))\n",
        "    fresh = tuple(statuses)\n",
        f"{RULES} -k say_something_else",
    ),
    Mutation(
        "a pull request that a person has made a draft again is made ready again",
        "refinery/core/rules/pullreports.py",
        " and READY not in said_at(row.said, pull.head)",
        "",
        f"{RULES} -k ready_once",
    ),
    Mutation(
        "a page leads where a host's answer says",
        "refinery/pages/pulls.py",
        "    url = hosting.page(config, row.rig.remote_url, row.number)\n",
        '    url = row.state.get("url", "")\n',
        "tests/web/test_pull_links.py",
    ),
    Mutation(
        "an agent's word is enough for the pull request that it names",
        "refinery/core/pullviews.py",
        "    if pull.head != head:\n",
        "    if False:\n",
        f"{RULES} -k agent_names",
    ),
    Mutation(
        "our comment is made again after a crash",
        "refinery/hosts/github.py",
        '            known = next((_number(c, "id") for c in said if marker in (c.get("body") or "")), 0)\n',
        "            known = len([c for c in said if False])\n",
        f"{GITHUB} -k done_once",
    ),
)
