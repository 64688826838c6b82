//! Policy document → compiled policy: everything checked, everything resolved per agent, so that a
//! decision is a look-up. A document that isn't understood in full is refused in full.

mod agents;
mod callables;
mod results;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use thiserror::Error;

use crate::{
    credential,
    json::{self, Limits},
    mcp::Fingerprint,
    policy::{
        document::{
            ClientFeatures, FORMAT, Issuer, KeyExchange, PolicyDocument, RequestLimits, Tenant, Upstream,
        },
        persons::{self, Person},
        resources::{self, ResourceOffer},
    },
    reason::Reason,
    tokens,
};

pub use agents::{ActsFor, CompiledAgent};
pub(super) use callables::{Callables, ForcedArgument, Grant, Rule, Value, names_nothing, value_of};
pub(super) use results::CompiledResults;

/// Limits of the document itself: what a `ConfigMap` can hold.
const DOCUMENT: Limits = Limits {
    bytes: 1 << 20,
    depth: 16,
};

/// Why a document is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CompileError {
    /// It is no strict JSON.
    #[error("the policy document is no strict JSON: {0}")]
    Json(Reason),
    /// It isn't of the shape that this code knows.
    #[error("the policy document is not understood: {0}")]
    Shape(String),
    /// It is of another format.
    #[error("the policy document has format {0}, this sidecar reads format {FORMAT}")]
    Format(u32),
    /// A part of it is wrong.
    #[error("policy: {part} {problem}")]
    Invalid {
        /// Which part.
        part: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// The compiled policy of one server.
#[derive(Debug)]
pub struct CompiledPolicy {
    revision: Arc<str>,
    tenant: Tenant,
    server: String,
    /// Of the credentials that are made for the server.
    issuer: String,
    /// Of the tokens that its agents present.
    audience: String,
    hostnames: BTreeSet<String>,
    upstream: Upstream,
    key_exchange: KeyExchange,
    /// By SPIFFE ID.
    agents: HashMap<Arc<str>, Arc<CompiledAgent>>,
    /// By `iss`.
    issuers: HashMap<String, Arc<Issuer>>,
    limits: RequestLimits,
    pub(super) tools: Callables,
    pub(super) prompts: Callables,
    resources: Vec<ResourceOffer>,
    has_owned: bool,
    pub(super) accepted_instructions: Vec<Fingerprint>,
    pub(super) features: ClientFeatures,
}

pub(super) fn invalid(part: impl Into<String>, problem: impl Into<String>) -> CompileError {
    CompileError::Invalid {
        part: part.into(),
        problem: problem.into(),
    }
}

impl CompiledPolicy {
    /// Compiles a mounted document. Its revision is that of exactly these bytes.
    pub fn from_json(bytes: &[u8]) -> Result<Self, CompileError> {
        // serde reads maps with a key twice as if the last one were the only one.
        json::check(bytes, DOCUMENT).map_err(CompileError::Json)?;
        let document: PolicyDocument =
            serde_json::from_slice(bytes).map_err(|error| CompileError::Shape(error.to_string()))?;
        Self::compile(document, PolicyDocument::revision_of(bytes))
    }

    fn compile(document: PolicyDocument, revision: String) -> Result<Self, CompileError> {
        let PolicyDocument {
            format,
            tenant,
            server,
            hostnames,
            upstream,
            key_exchange,
            agents,
            issuers,
            limits,
            tools,
            prompts,
            resources,
            instructions,
            client_features,
        } = document;
        if format != FORMAT {
            return Err(CompileError::Format(format));
        }
        if tenant.name.is_empty() || tenant.uid.is_empty() {
            return Err(invalid("tenant", "has no name or no uid"));
        }
        if server.is_empty() {
            return Err(invalid("server", "has no name"));
        }
        for hostname in &hostnames {
            if hostname.is_empty() || !hostname.bytes().all(is_host_byte) {
                return Err(invalid(
                    format!("hostnames[{hostname}]"),
                    "is no lower-case host name",
                ));
            }
        }
        if upstream.port == 0 || !is_path(&upstream.path) {
            return Err(invalid(
                "upstream",
                "needs a port, and a path that begins with a slash",
            ));
        }
        persons::check(&issuers)?;
        agents::check(&agents, &issuers)?;
        let tools = Callables::compile("tools", tools, callables::as_json)?;
        let prompts = Callables::compile("prompts", prompts, callables::as_text)?;
        let resources = resources::compile(resources)?;
        let accepted_instructions = accepted(&instructions, "instructions")?;
        let agents = agents.into_iter().map(|agent| {
            let compiled = CompiledAgent::new(&Arc::new(agent), None, &tools, &prompts, &resources);
            (Arc::clone(compiled.spiffe_id()), Arc::new(compiled))
        });
        Ok(Self {
            agents: agents.collect(),
            issuers: issuers
                .into_iter()
                .map(|issuer| (issuer.url.clone(), Arc::new(issuer)))
                .collect(),
            limits,
            revision: revision.into(),
            issuer: credential::issuer(&tenant.name, &server),
            audience: tokens::audience(&tenant.name),
            tenant,
            server,
            hostnames,
            upstream,
            key_exchange,
            has_owned: tools.rules().any(|rule| rule.is_owned())
                || resources.iter().any(|offer| offer.rule.is_owned()),
            tools,
            prompts,
            resources,
            accepted_instructions,
            features: client_features,
        })
    }

    /// The revision: hex digits of the document's digest.
    pub fn revision(&self) -> &Arc<str> {
        &self.revision
    }

    /// The tenant that the server belongs to.
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    /// The server's name.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Issuer and audience of the credentials that are made for the server.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Audience that the agents' tokens must have.
    pub fn audience(&self) -> &str {
        &self.audience
    }

    /// Host names that clients may use, without port, lower case.
    pub fn hostnames(&self) -> &BTreeSet<String> {
        &self.hostnames
    }

    /// How keys are agreed on with clients.
    pub fn key_exchange(&self) -> KeyExchange {
        self.key_exchange
    }

    /// Where the server listens.
    pub fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// Whether results of some tool, or contents of some resource, are filtered by owner: whoever it is for, the server has
    /// records of several owners then.
    pub(super) fn has_owned(&self) -> bool {
        self.has_owned
    }

    /// How much all agents together may ask of this sidecar.
    pub fn limits(&self) -> RequestLimits {
        self.limits
    }

    /// Whether there are rules about resources or templates.
    pub(super) fn has_resources(&self) -> bool {
        !self.resources.is_empty()
    }

    /// All agents.
    pub fn agents(&self) -> impl Iterator<Item = &CompiledAgent> {
        self.agents.values().map(AsRef::as_ref)
    }

    /// The agent with this SPIFFE ID, exactly. `None` may do nothing.
    pub fn agent(&self, spiffe_id: &str) -> Option<&CompiledAgent> {
        self.agents.get(spiffe_id).map(AsRef::as_ref)
    }

    /// The same, as it acts for nobody but itself.
    pub fn acting_alone(&self, spiffe_id: &str) -> Option<&Arc<CompiledAgent>> {
        self.agents.get(spiffe_id)
    }

    /// The issuer of persons' tokens with this `iss`, exactly.
    pub fn issuer_of(&self, iss: &str) -> Option<&Arc<Issuer>> {
        self.issuers.get(iss)
    }

    /// The issuers of persons' tokens, by `iss`.
    pub fn issuers(&self) -> BTreeSet<&str> {
        self.issuers.keys().map(String::as_str).collect()
    }

    /// The agent as it acts for a person: it may do what both may. `None`: the tenant doesn't take the word of the
    /// person's issuer.
    pub fn acting_for(&self, agent: &CompiledAgent, person: &Person) -> Option<CompiledAgent> {
        let issuer = self.issuers.get(person.issuer())?;
        let granted = Some((person, &**issuer));
        Some(CompiledAgent::new(
            &agent.source,
            granted,
            &self.tools,
            &self.prompts,
            &self.resources,
        ))
    }
}

/// The definitions that a rule accepts.
fn accepted(definitions: &BTreeSet<String>, rule: &str) -> Result<Vec<Fingerprint>, CompileError> {
    let parsed = definitions.iter().map(|text| {
        Fingerprint::parse(text).ok_or_else(|| {
            let problem = "has a definition that is not sha256: and 64 lower-case hex digits";
            invalid(rule, problem)
        })
    });
    parsed.collect()
}

fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._:[]".contains(&byte)
}

fn is_path(path: &str) -> bool {
    path.starts_with('/')
        && path
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !b"?#".contains(&byte))
}

#[cfg(test)]
mod tests;
