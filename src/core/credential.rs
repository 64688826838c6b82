//! The credential of one upstream request: a JWT (RFC 7519) that says who calls, for which tenant, and what. Pure: the
//! sidecar signs it.
//!
//! A server that verifies it needs no word of the client's. It is for one server, for a minute at most, and for one call:
//! of a tool with the digest of its final arguments, so that it is worth nothing for another one.

use sha2::{Digest, Sha256};

use crate::{
    json::{self, object::Object},
    mcp::methods::Method,
    policy::{CompiledAgent, CompiledPolicy, Expected, Forward},
};

/// `typ` of the token (RFC 8725 §3.11): nothing else is of this type.
pub const TYPE: &str = "bulkhead-call+jwt";

/// `alg` of the token (RFC 8037).
pub const ALGORITHM: &str = "EdDSA";

/// How long it is good for, in seconds.
pub const LIFETIME: u64 = 30;

/// Room for the claims of a message; longer ones take more.
const USUAL: usize = 512;

/// What the token claims.
#[derive(Debug)]
pub struct Claims<'a> {
    iss: &'a str,
    aud: &'a str,
    /// The agent's SPIFFE ID; of what the sidecar asks for itself, the same as `iss`.
    sub: &'a str,
    iat: u64,
    exp: u64,
    jti: &'a str,
    tenant: &'a str,
    tenant_uid: &'a str,
    server: &'a str,
    /// Absent when the sidecar asks for itself.
    agent: Option<&'a str>,
    /// The person that the agent acts for.
    person: Option<Person<'a>>,
    /// The JSON-RPC method; of a session's stream and end, and of an answer to the server, the HTTP method.
    method: &'a str,
    tool: Option<&'a str>,
    prompt: Option<&'a str>,
    resource: Option<&'a str>,
    /// SHA-256 of the call's arguments in their canonical form (RFC 8785), base64url.
    arguments_digest: Option<&'a str>,
}

/// A person: whom the issuer `iss` calls `sub`.
#[derive(Debug)]
struct Person<'a> {
    iss: &'a str,
    sub: &'a str,
}

/// When a token is made, and what makes it unlike every other.
#[derive(Clone, Copy, Debug)]
pub struct Moment<'a> {
    /// Seconds since 1970.
    pub now: u64,
    /// Unique.
    pub id: &'a str,
}

impl<'a> Claims<'a> {
    /// The claims of a permitted message.
    pub fn of_message(
        policy: &'a CompiledPolicy,
        agent: &'a CompiledAgent,
        message: &'a Forward,
        moment: Moment<'a>,
    ) -> Self {
        let method = message.method();
        let named = message.expected().and_then(Expected::name);
        let named_by =
            |methods: &[Method]| named.filter(|_| method.is_some_and(|method| methods.contains(&method)));
        Self {
            tool: named_by(&[
                Method::ToolsCall,
                Method::TasksGet,
                Method::TasksUpdate,
                Method::TasksCancel,
            ]),
            prompt: named_by(&[Method::PromptsGet]),
            resource: named_by(&[Method::ResourcesRead, Method::Subscribe, Method::Unsubscribe]),
            arguments_digest: message.arguments_digest(),
            ..Self::of_http(policy, agent, method.map_or("POST", Method::name), moment)
        }
    }

    /// The claims of a request that HTTP alone speaks: a session's stream, its end.
    pub fn of_http(
        policy: &'a CompiledPolicy,
        agent: &'a CompiledAgent,
        method: &'a str,
        moment: Moment<'a>,
    ) -> Self {
        Self {
            sub: agent.spiffe_id(),
            agent: Some(agent.name()),
            person: agent.person().map(|person| Person {
                iss: &person.issuer,
                sub: &person.subject,
            }),
            ..Self::of_sidecar(policy, method, moment)
        }
    }

    /// The claims of what the sidecar asks for itself: the server's lists.
    pub fn of_sidecar(policy: &'a CompiledPolicy, method: &'a str, moment: Moment<'a>) -> Self {
        Self {
            iss: policy.issuer(),
            aud: policy.issuer(),
            sub: policy.issuer(),
            iat: moment.now,
            exp: moment.now + LIFETIME,
            jti: moment.id,
            tenant: &policy.tenant().name,
            tenant_uid: &policy.tenant().uid,
            server: policy.server(),
            agent: None,
            person: None,
            method,
            tool: None,
            prompt: None,
            resource: None,
            arguments_digest: None,
        }
    }

    /// Appends what is signed: header and claims, each base64url, with a dot between.
    pub fn signing_input(&self, header: &str, out: &mut String) {
        out.push_str(header);
        out.push('.');
        base64url(self.json().as_bytes(), out);
    }

    fn json(&self) -> String {
        let mut claims = Object::begin(USUAL);
        claims
            .text("iss", self.iss)
            .text("aud", self.aud)
            .text("sub", self.sub)
            .number("iat", self.iat)
            .number("exp", self.exp)
            .text("jti", self.jti)
            .text("tenant", self.tenant)
            .text("tenant_uid", self.tenant_uid)
            .text("server", self.server)
            .text_if("agent", self.agent);
        if let Some(person) = &self.person {
            claims.object("person", |claims| {
                claims.text("iss", person.iss).text("sub", person.sub);
            });
        }
        claims
            .text("method", self.method)
            .text_if("tool", self.tool)
            .text_if("prompt", self.prompt)
            .text_if("resource", self.resource)
            .text_if("arguments_digest", self.arguments_digest);
        claims.end()
    }
}

/// Issuer and audience of a server's credentials: the sidecar makes them for its own server.
pub fn issuer(tenant: &str, server: &str) -> String {
    format!("bulkhead:{tenant}/{server}")
}

/// Appends bytes as base64url without padding (RFC 7515).
pub fn base64url(bytes: &[u8], out: &mut String) {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    URL_SAFE_NO_PAD.encode_string(bytes, out);
}

/// The digest of a call's arguments, as the claim has it; `None` when they have no canonical form.
///
/// RFC 8785 knows numbers as doubles: two integers beyond 2^53 that are one double have one digest.
pub fn digest(arguments: Option<&str>) -> Option<String> {
    let canonical = json::canonical(arguments.unwrap_or("{}"))?;
    let mut text = String::with_capacity(43);
    base64url(&Sha256::digest(canonical), &mut text);
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_claims_say_all_that_is_known() {
        let claims = Claims {
            iss: "bulkhead:acme/crm",
            aud: "bulkhead:acme/crm",
            sub: "spiffe://acme/billing",
            iat: 1,
            exp: 31,
            jti: "a1",
            tenant: "acme",
            tenant_uid: "u-1",
            server: "crm",
            agent: Some("billing"),
            person: Some(Person {
                iss: "https://login.example",
                sub: "ada \"a\"",
            }),
            method: "tools/call",
            tool: Some("list"),
            prompt: Some("greet"),
            resource: Some("file:///a"),
            arguments_digest: Some("RBNv"),
        };
        let all = concat!(
            r#"{"iss":"bulkhead:acme/crm","aud":"bulkhead:acme/crm","sub":"spiffe://acme/billing","iat":1,"exp":31,"#,
            r#""jti":"a1","tenant":"acme","tenant_uid":"u-1","server":"crm","agent":"billing","#,
            r#""person":{"iss":"https://login.example","sub":"ada \"a\""},"method":"tools/call","tool":"list","#,
            r#""prompt":"greet","resource":"file:///a","arguments_digest":"RBNv"}"#
        );
        assert_eq!(claims.json(), all);
    }

    #[test]
    fn equal_arguments_have_one_digest_however_they_are_written() {
        // SHA-256 of the two bytes {}.
        let empty = "RBNvo1WzZ4oRRq0W9-hknpT7T8If536DEMBg9hyq_4o";
        for arguments in [None, Some("{}"), Some("{ }")] {
            assert_eq!(digest(arguments).as_deref(), Some(empty));
        }
        let one = digest(Some(r#"{"b":1.0,"a":"\u00e9"}"#));
        assert_eq!(one, digest(Some("{\"a\":\"é\", \"b\":1}")));
        assert_ne!(one, digest(Some("{\"a\":\"é\",\"b\":2}")));
    }
}
