//! Policy document → compiled policy: everything checked, everything resolved per agent, so that a
//! decision is a look-up. A document that isn't understood in full is refused in full.

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
    policy::{
        document::{
            Agent, AgentLimits, ClientFeatures, FORMAT, Issuer, KeyExchange, PolicyDocument, Tenant, Upstream,
        },
        persons::{self, Facts, Person},
        resources::{self, ResourceGrant, ResourceOffer},
    },
    reason::Reason,
    tokens,
};

use callables::Grants;
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
    pub(super) tools: Callables,
    pub(super) prompts: Callables,
    resources: Vec<ResourceOffer>,
    pub(super) features: ClientFeatures,
}

/// An agent, or an agent that acts for a person, and what exists for it.
#[derive(Debug)]
pub struct CompiledAgent {
    name: Arc<str>,
    spiffe_id: Arc<str>,
    /// Of its own tokens.
    subject: Option<String>,
    /// What it was compiled of.
    source: Arc<Agent>,
    /// Its roles; with a person, those that both have.
    roles: BTreeSet<String>,
    person: Option<ActsFor>,
    /// Whose handles are its own.
    owner: Arc<str>,
    tools: Grants,
    prompts: Grants,
    resources: Vec<Result<Arc<ResourceGrant>, Reason>>,
}

/// The person that an agent acts for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActsFor {
    /// The name of the issuer in the tenant.
    pub issuer_name: String,
    /// `iss` of the token.
    pub issuer: String,
    /// `sub` of the token.
    pub subject: String,
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
            tools,
            prompts,
            resources,
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
        check_agents(&agents, &issuers)?;
        let tools = Callables::compile("tools", tools, callables::as_json)?;
        let prompts = Callables::compile("prompts", prompts, callables::as_text)?;
        let resources = resources::compile(resources)?;
        let agents = agents.into_iter().map(|agent| {
            let compiled = compile_agent(&Arc::new(agent), None, &tools, &prompts, &resources);
            (Arc::clone(&compiled.spiffe_id), Arc::new(compiled))
        });
        Ok(Self {
            agents: agents.collect(),
            issuers: issuers
                .into_iter()
                .map(|issuer| (issuer.url.clone(), Arc::new(issuer)))
                .collect(),
            revision: revision.into(),
            issuer: credential::issuer(&tenant.name, &server),
            audience: tokens::audience(&tenant.name),
            tenant,
            server,
            hostnames,
            upstream,
            key_exchange,
            tools,
            prompts,
            resources,
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
        Some(compile_agent(
            &agent.source,
            granted,
            &self.tools,
            &self.prompts,
            &self.resources,
        ))
    }
}

impl CompiledAgent {
    /// The agent's name in the tenant.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Its SPIFFE ID.
    pub fn spiffe_id(&self) -> &Arc<str> {
        &self.spiffe_id
    }

    /// The person that it acts for.
    pub fn person(&self) -> Option<&ActsFor> {
        self.person.as_ref()
    }

    /// Its roles; with a person, those that both have.
    pub fn roles(&self) -> &BTreeSet<String> {
        &self.roles
    }

    /// Whose handles are its own: the agent's, and with a person that person's only.
    pub fn owner(&self) -> &Arc<str> {
        &self.owner
    }

    /// Whether it is this OAuth client to an issuer, by the issuer's name.
    pub fn is_client(&self, issuer: &str, id: &str) -> bool {
        let mut clients = self.source.clients.iter();
        clients.any(|client| client.issuer == issuer && client.id == id)
    }

    /// Whether it may do nothing for itself, but only for a person.
    pub fn requires_person(&self) -> bool {
        self.source.requires_person
    }

    /// The subject of its `ServiceAccount`'s tokens. `None`: no token can be its own.
    pub fn subject(&self) -> Option<&str> {
        self.subject.as_deref()
    }

    /// How much it may ask of this sidecar.
    pub fn limits(&self) -> AgentLimits {
        self.source.limits
    }

    /// Names of the tools that exist for the agent, in their order.
    pub fn tools(&self) -> BTreeSet<&str> {
        self.tools.names().collect()
    }

    /// How the agent may call a tool, or why not.
    pub(super) fn tool(&self, policy: &CompiledPolicy, name: &str) -> Result<&Grant, Reason> {
        self.tools.get(name).unwrap_or_else(|| {
            Err(if policy.tools.get(name).is_some() {
                Reason::ToolNotGranted
            } else {
                Reason::ToolUnknown
            })
        })
    }

    /// How the agent may get a prompt, or why not.
    pub(super) fn prompt(&self, policy: &CompiledPolicy, name: &str) -> Result<&Grant, Reason> {
        self.prompts.get(name).unwrap_or_else(|| {
            Err(if policy.prompts.get(name).is_some() {
                Reason::PromptNotGranted
            } else {
                Reason::PromptUnknown
            })
        })
    }

    /// By which rule the agent may read a resource, or why not. Of several an exact one counts, and else the first.
    pub(super) fn resource(&self, uri: &str) -> Result<&ResourceGrant, Reason> {
        let grant = self
            .covering()
            .find(|grant| grant.uri == uri && grant.is_exact())
            .or_else(|| self.covering().find(|grant| grant.covers(uri)))
            .ok_or(Reason::ResourceNotGranted)?;
        grant.blocked.map_or(Ok(grant), Err)
    }

    /// By which rule the agent is told of a resource, or why not: of a filtered template's none, since a URI can be the name
    /// of somebody else's record.
    pub(super) fn resource_shown(&self, uri: &str) -> Result<&ResourceGrant, Reason> {
        let grant = self.resource(uri)?;
        if grant.names_records() {
            return Err(Reason::ResourceNotGranted);
        }
        Ok(grant)
    }

    /// The grant of a template, as the server writes it.
    pub(super) fn template(&self, template: &str) -> Option<&ResourceGrant> {
        self.resources().find(|grant| grant.is_template(template))
    }

    /// The grants of the agent's resources and templates.
    pub(super) fn resources(&self) -> impl Iterator<Item = &ResourceGrant> {
        self.covering().filter(|grant| grant.blocked.is_none())
    }

    /// The same, and those that cover resources which the agent may not read.
    fn covering(&self) -> impl Iterator<Item = &ResourceGrant> {
        self.resources.iter().filter_map(|grant| grant.as_deref().ok())
    }

    /// Whether results of some tool, or contents of some resource, are filtered by owner.
    pub(super) fn has_owned(&self) -> bool {
        self.tools.any_owned() || self.covering().any(|grant| grant.rule.is_owned())
    }

    pub(super) fn has_prompts(&self) -> bool {
        self.prompts.any()
    }

    pub(super) fn has_resources(&self) -> bool {
        self.resources().next().is_some()
    }
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

fn check_agents(agents: &[Agent], issuers: &[Issuer]) -> Result<(), CompileError> {
    for (index, agent) in agents.iter().enumerate() {
        let part = || format!("agents[{}]", agent.name);
        let before = &agents[..index];
        if agent.name.is_empty() || before.iter().any(|other| other.name == agent.name) {
            return Err(invalid(part(), "has no name, or one that another agent has"));
        }
        if !agent.spiffe_id.starts_with("spiffe://") || agent.spiffe_id.contains('\n') {
            return Err(invalid(part(), "has no SPIFFE ID"));
        }
        if before.iter().any(|other| other.spiffe_id == agent.spiffe_id) {
            return Err(invalid(part(), "has the SPIFFE ID of another agent"));
        }
        if agent.requires_person && issuers.is_empty() {
            return Err(invalid(
                part(),
                "acts for persons only, and there is no issuer of their tokens",
            ));
        }
        for client in &agent.clients {
            let issuer = issuers.iter().find(|issuer| issuer.name == client.issuer);
            let Some(issuer) = issuer.filter(|_| !client.id.is_empty()) else {
                return Err(invalid(
                    part(),
                    "has a client without an id, or of an issuer that isn't there",
                ));
            };
            // OpenID Connect Core 1.0 §2: the audience of an ID token is the client.
            if issuer.audiences.contains(&client.id) {
                return Err(invalid(
                    part(),
                    "has a client that is an audience of its issuer, and so ID tokens would be taken",
                ));
            }
            // Whose token it is must be plain: a client's are one agent's.
            if before.iter().any(|other| other.clients.contains(client)) {
                return Err(invalid(part(), "has a client that another agent has"));
            }
        }
    }
    Ok(())
}

fn compile_agent(
    source: &Arc<Agent>,
    acts_for: Option<(&Person, &Issuer)>,
    tools: &Callables,
    prompts: &Callables,
    resources: &[ResourceOffer],
) -> CompiledAgent {
    let spiffe_id: Arc<str> = source.spiffe_id.as_str().into();
    let mut roles = source.roles.clone();
    let mut owner = Arc::clone(&spiffe_id);
    if let Some((person, issuer)) = acts_for {
        let persons = person.roles(issuer);
        roles.retain(|role| persons.contains(role.as_str()));
        owner = format!("{spiffe_id}\n{}\n{}", person.issuer(), person.subject()).into();
    }
    let facts = Facts {
        attributes: &source.attributes,
        person: acts_for.map(|(person, _)| person),
    };
    let (tools, prompts) = (tools.of(&roles, facts), prompts.of(&roles, facts));
    let resources = resources
        .iter()
        .filter(|offer| !offer.rule.roles.is_disjoint(&roles));
    let resources = resources.map(|offer| offer.grant(facts)).collect();
    CompiledAgent {
        name: source.name.as_str().into(),
        subject: tokens::subject(&spiffe_id),
        owner,
        spiffe_id,
        source: Arc::clone(source),
        roles,
        person: acts_for.map(|(person, issuer)| ActsFor {
            issuer_name: issuer.name.clone(),
            issuer: issuer.url.clone(),
            subject: person.subject().to_owned(),
        }),
        tools,
        prompts,
        resources,
    }
}

#[cfg(test)]
mod tests;
