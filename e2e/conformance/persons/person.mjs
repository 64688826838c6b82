// A person logs in at the provider, as in a browser, and an unmodified MCP client of an agent acts for them by the token.
//   person.mjs MODULES PROVIDER SIDECAR
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { createRequire } from 'node:module';
import { join } from 'node:path';

const API = 'https://mcp.example.com/conformance';
const [modules, provider, sidecar] = process.argv.slice(2);
const require = createRequire(join(modules, 'of-persons'));
const { Client, StreamableHTTPClientTransport } = require('@modelcontextprotocol/client');

// Tokens of a person, by the authorization code flow with PKCE: forms are filled in, redirects followed.
async function login(person, client, resource) {
  const { authorization_endpoint, token_endpoint } =
    await (await fetch(`${provider}/.well-known/openid-configuration`)).json();
  const verifier = randomBytes(32).toString('base64url');
  const callback = 'https://desk.example.com/callback';
  const cookies = new Map();
  const ask = async (url, form) => {
    const answer = await fetch(url, {
      redirect: 'manual',
      method: form ? 'POST' : 'GET',
      body: form && new URLSearchParams(form),
      headers: { cookie: [...cookies].map(([name, value]) => `${name}=${value}`).join('; ') },
    });
    for (const cookie of answer.headers.getSetCookie()) {
      const [, name, value] = /^([^=]+)=([^;]*)/.exec(cookie);
      value ? cookies.set(name, value) : cookies.delete(name);
    }
    return answer;
  };
  let url = `${authorization_endpoint}?${new URLSearchParams({
    client_id: client,
    response_type: 'code',
    redirect_uri: callback,
    scope: resource ? 'openid mcp' : 'openid',
    code_challenge: createHash('sha256').update(verifier).digest('base64url'),
    code_challenge_method: 'S256',
    ...(resource && { resource }),
  })}`;
  for (let step = 0; step < 20; step += 1) {
    let answer = await ask(url);
    if (answer.status === 200) {
      const page = await answer.text();
      const prompt = /name="prompt" value="(\w+)"/.exec(page)[1];
      answer = await ask(/action="([^"]+)"/.exec(page)[1], { prompt, ...(prompt === 'login' && { login: person, password: 'any' }) });
    }
    url = new URL(answer.headers.get('location'), url).href;
    if (url.startsWith(callback)) break;
  }
  const code = new URL(url).searchParams.get('code');
  assert(code, `no code: ${url}`);
  const answer = await ask(token_endpoint, {
    grant_type: 'authorization_code',
    code,
    client_id: client,
    redirect_uri: callback,
    code_verifier: verifier,
    ...(resource && { resource }),
  });
  const tokens = await answer.json();
  assert.equal(answer.status, 200, JSON.stringify(tokens));
  return tokens;
}

async function connected(token) {
  const client = new Client({ name: 'a-client', version: '1' }, { versionNegotiation: { mode: { pin: '2026-07-28' } } });
  const headers = token && { authorization: `Bearer ${token}` };
  await client.connect(new StreamableHTTPClientTransport(new URL(sidecar), { requestInit: { headers } }));
  return client;
}

const names = async client => (await client.listTools()).tools.map(tool => tool.name).sort();

// The agent for itself, then for two persons: what both may, with what the token says of the person.
const alone = await connected();
assert.deepEqual(await names(alone), ['test_image_content', 'test_simple_text']);
await alone.close();

for (const resource of [API, `${API}/rsa`]) {
  const ada = await connected((await login('ada', 'desk', resource)).access_token);
  assert.deepEqual(await names(ada), ['echo_arguments', 'test_simple_text'], 'what ada and the agent may');
  const result = await ada.callTool({ name: 'echo_arguments', arguments: { message: 'hello', tenant_id: 'us' } });
  assert.deepEqual(result.structuredContent, { message: 'hello', tenant_id: 'eu' }, "the server got the person's region");
  await ada.close();
}
const eve = await connected((await login('eve', 'desk', API)).access_token);
assert.deepEqual(await names(eve), [], 'what eve may');
await assert.rejects(eve.callTool({ name: 'echo_arguments', arguments: { message: 'hello' } }), /Unknown tool/);
await eve.close();

// What isn't a token for this: each is refused, as a token and by name.
const refused = async (token, reason) => {
  const answer = await fetch(sidecar, {
    method: 'POST',
    headers: { 'content-type': 'application/json', accept: 'application/json, text/event-stream', authorization: `Bearer ${token}` },
    body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'tools/list', params: {} }),
  });
  const said = await answer.text();
  assert.equal(answer.status, 401, `${reason}: ${said}`);
  assert.match(said + answer.headers.get('www-authenticate'), new RegExp(reason), said);
};
const tokens = await login('ada', 'desk', API);
// It is for the client, which no audience of a tenant may be.
await refused(tokens.id_token, 'token_audience');
await refused((await login('ada', 'desk')).access_token, 'token_malformed');
await refused((await login('ada', 'desk', 'https://other.example.com/api')).access_token, 'token_audience');
await refused((await login('ada', 'another-desk', API)).access_token, 'token_binding');
