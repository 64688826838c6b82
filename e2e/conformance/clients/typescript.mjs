// A client of a TypeScript SDK, as anybody writes one: what it sees through the sidecar must be what the policy says.
//   typescript.mjs MODULES typescript-v1|typescript-v2 legacy|modern URL
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { join } from 'node:path';

const TENANT_ID = '5f0c2a11-8d0e-4a35-9d6b-2f0b7c1d0003';
const [modules, sdk, era, url] = process.argv.slice(2);
const require = createRequire(join(modules, 'of-clients'));

function load() {
  if (sdk === 'typescript-v1') {
    return {
      ...require('@modelcontextprotocol/sdk/client/index.js'),
      ...require('@modelcontextprotocol/sdk/client/streamableHttp.js'),
    };
  }
  return require('@modelcontextprotocol/client');
}

const { Client, StreamableHTTPClientTransport } = load();
const versionNegotiation = { mode: era === 'modern' ? { pin: '2026-07-28' } : 'legacy' };
const client = new Client({ name: 'a-client', version: '1' }, { versionNegotiation });
const transport = new StreamableHTTPClientTransport(new URL(url));
await client.connect(transport);
// Sessions are of the legacy era: with one the era is what was asked for.
assert.equal(Boolean(transport.sessionId), era === 'legacy', 'the era');

const { tools } = await client.listTools();
const echo = tools.find(tool => tool.name === 'echo_arguments');
assert.deepEqual(Object.keys(echo.inputSchema.properties), ['message'], 'a forced argument is not in the schema');
assert.deepEqual(echo.inputSchema.required, ['message'], 'nor is it required');
assert(!tools.some(tool => tool.name === 'not_granted'), 'a tool that is not granted is not listed');

for (const given of [{}, { tenant_id: 'another' }]) {
  const result = await client.callTool({ name: 'echo_arguments', arguments: { message: 'hello', ...given } });
  const wanted = { message: 'hello', tenant_id: TENANT_ID };
  assert.deepEqual(result.structuredContent, wanted, 'the server got the forced argument');
}
await assert.rejects(client.callTool({ name: 'not_granted', arguments: {} }), /Unknown tool/);

const prompt = await client.getPrompt({ name: 'test_prompt_with_arguments', arguments: { arg1: 'a', arg2: 'b' } });
assert.match(prompt.messages[0].content.text, /arg1='a', arg2='b'/);
const { resources } = await client.listResources();
assert(resources.some(resource => resource.uri === 'test://static-text'));
const read = await client.readResource({ uri: 'test://template/7/data' });
assert.equal(JSON.parse(read.contents[0].text).id, '7');
await assert.rejects(client.readResource({ uri: 'test://not-granted' }));
await client.close();
