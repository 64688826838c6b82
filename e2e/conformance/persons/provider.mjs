// A real identity provider (oidc-provider), configured as anybody configures one: two persons, two OAuth clients, access
// tokens for an API (RFC 9068, RFC 8707), PKCE required.
//   provider.mjs MODULES CERTIFICATE KEY
import { generateKeyPairSync } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const [modules, certificate, key] = process.argv.slice(2);
const { Provider } = await import(pathToFileURL(join(modules, 'oidc-provider/lib/index.js')));

const GROUPS = { ada: ['finance'], eve: ['visitors'] };
const REGIONS = { ada: 'eu', eve: 'us' };

const server = createServer({ cert: readFileSync(certificate), key: readFileSync(key) });
await new Promise(listening => server.listen(0, '127.0.0.1', listening));
const issuer = `https://localhost:${server.address().port}`;

const signing = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ format: 'jwk' });
const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ format: 'jwk' });
const client = id => ({
  client_id: id,
  token_endpoint_auth_method: 'none',
  redirect_uris: ['https://desk.example.com/callback'],
  grant_types: ['authorization_code'],
  response_types: ['code'],
});
const provider = new Provider(issuer, {
  clients: [client('desk'), client('another-desk')],
  jwks: { keys: [{ ...signing, use: 'sig', alg: 'ES256', kid: 'ec' }, { ...rsa, use: 'sig', alg: 'RS256', kid: 'rsa' }] },
  cookies: { keys: ['a secret of this run'] },
  findAccount: (_, id) => GROUPS[id] && { accountId: id, claims: () => ({ sub: id, groups: GROUPS[id] }) },
  extraTokenClaims: (_, token) => ({ groups: GROUPS[token.accountId], region: REGIONS[token.accountId] }),
  pkce: { required: () => true },
  features: {
    devInteractions: { enabled: true },
    resourceIndicators: {
      enabled: true,
      useGrantedResource: () => true,
      getResourceServerInfo: (_, audience) => ({
        audience,
        scope: 'mcp',
        accessTokenFormat: 'jwt',
        accessTokenTTL: 600,
        jwt: { sign: { alg: audience.endsWith('rsa') ? 'RS256' : 'ES256' } },
      }),
    },
  },
});
server.on('request', provider.callback());
console.log(`${issuer}  ready`);
