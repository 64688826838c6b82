"""A client of the Python SDK, as anybody writes one: what it sees through the sidecar must be what the policy says.

python.py legacy|modern URL
"""

import asyncio
import json
import sys

from mcp import Client, MCPError

TENANT_ID = "5f0c2a11-8d0e-4a35-9d6b-2f0b7c1d0003"


async def refused(request) -> None:
    try:
        result = await request
    except MCPError:
        return
    raise AssertionError(f"not refused: {result}")


async def main(era: str, url: str) -> None:
    async with Client(url, mode="legacy" if era == "legacy" else "2026-07-28") as client:
        assert (client.protocol_version == "2026-07-28") == (era == "modern"), client.protocol_version

        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        schema = tools["echo_arguments"].input_schema
        assert list(schema["properties"]) == ["message"], "a forced argument is not in the schema"
        assert schema["required"] == ["message"], "nor is it required"
        assert "not_granted" not in tools, "a tool that is not granted is not listed"

        for given in ({}, {"tenant_id": "another"}):
            result = await client.call_tool("echo_arguments", {"message": "hello"} | given)
            wanted = {"message": "hello", "tenant_id": TENANT_ID}
            assert result.structured_content == wanted, result
        await refused(client.call_tool("not_granted", {}))

        prompt = await client.get_prompt("test_prompt_with_arguments", {"arg1": "a", "arg2": "b"})
        assert "arg1='a', arg2='b'" in prompt.messages[0].content.text, prompt
        resources = (await client.list_resources()).resources
        assert "test://static-text" in [str(resource.uri) for resource in resources]
        read = await client.read_resource("test://template/7/data")
        assert json.loads(read.contents[0].text)["id"] == "7", read
        await refused(client.read_resource("test://not-granted"))


asyncio.run(main(*sys.argv[1:]))
