"""A polecat that has no shell: it works by MCP alone, over HTTP and by `gt mcp` on standard input and output."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client


async def work() -> None:
    """Prime and status over HTTP, done over standard input and output."""
    headers = {"Authorization": f"Bearer {os.environ['GASTOWN_TOKEN']}"}
    url = f"{os.environ['GASTOWN_URL']}/mcp"
    async with (
        httpx2.AsyncClient(headers=headers, timeout=60) as http,
        Client(streamable_http_client(url, http_client=http)) as client,
    ):
        prime = await client.call_tool("gt_prime")
        title = prime.structured_content["bead"]["title"]
        await client.call_tool("gt_status", {"message": "by MCP"})
        refused = await client.call_tool("gt_request_changes", {"feedback": "no"})
    Path("made.txt").write_text(f"{title}\n{refused.content[0].text}\n")  # type: ignore[union-attr]
    subprocess.run(["git", "add", "-A"], check=True)
    subprocess.run(["git", "commit", "-qm", "Work by MCP"], check=True)
    async with Client(StdioServerParameters(command="gt", args=["mcp"], env=dict(os.environ))) as client:
        names = {one.name for one in (await client.list_tools()).tools}
        assert "gt_done" in names and "gt_sling" not in names, names
        done = await client.call_tool("gt_done", {"summary": "made by MCP"})
        assert not done.is_error, done


asyncio.run(work())
