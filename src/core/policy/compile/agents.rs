//! Agents: what the tenant says of them, and what exists for each.

use std::{collections::BTreeSet, sync::Arc};

use super::{Callables, CompileError, CompiledPolicy, Grant, callables::Grants, invalid};
use crate::{
    policy::{
        document::{Agent, Issuer, RequestLimits},
        persons::{Facts, Person},
        resources::{ResourceGrant, ResourceOffer},
    },
    reason::Reason,
    tokens,
};

/// An agent, or an agent that acts for a person, and what exists for it.
#[derive(Debug)]
pub struct CompiledAgent {
    name: Arc<str>,
    spiffe_id: Arc<str>,
    /// Of its own tokens.
    subject: Option<String>,
    /// What it was compiled of.
    pub(super) source: Arc<Agent>,
    /// Its roles; with a person, those that both have.
    roles: BTreeSet<String>,
    person: Option<ActsFor>,
    /// Whose handles are its own.
    owner: Arc<str>,
    tools: Grants,
    prompts: Grants,
    resources: Vec<Covering>,
}

/// A rule of resources with a caller's values in it.
#[derive(Debug)]
struct Covering {
    grant: Arc<ResourceGrant>,
    /// Whether the caller has a role for it. What it covers is its all the same: a rule that the caller has no role for must
    /// not leave the URI to a laxer one.
    is_granted: bool,
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

impl CompiledAgent {
    /// What of these exists for an agent, or for an agent that acts for a person.
    pub(super) fn new(
        source: &Arc<Agent>,
        acts_for: Option<(&Person, &Issuer)>,
        tools: &Callables,
        prompts: &Callables,
        resources: &[ResourceOffer],
    ) -> Self {
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
        let resources = resources.iter().filter_map(|offer| {
            Some(Covering {
                // Without a value for what is forced there is nothing that it covers.
                grant: offer.grant(facts).ok()?,
                is_granted: !offer.rule.roles.is_disjoint(&roles),
            })
        });
        Self {
            name: source.name.as_str().into(),
            subject: tokens::subject(&spiffe_id),
            owner,
            spiffe_id,
            source: Arc::clone(source),
            person: acts_for.map(|(person, issuer)| ActsFor {
                issuer_name: issuer.name.clone(),
                issuer: issuer.url.clone(),
                subject: person.subject().to_owned(),
            }),
            tools,
            prompts,
            resources: resources.collect(),
            roles,
        }
    }

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
    pub fn limits(&self) -> RequestLimits {
        self.source.limits
    }

    /// Names of the tools that exist for the agent, in their order.
    pub fn tools(&self) -> BTreeSet<&str> {
        self.tools.names().collect()
    }

    /// How the agent may call a tool, or why not.
    pub(in crate::policy) fn tool(&self, policy: &CompiledPolicy, name: &str) -> Result<&Grant, Reason> {
        self.tools.get(name).unwrap_or_else(|| {
            Err(if policy.tools.get(name).is_some() {
                Reason::ToolNotGranted
            } else {
                Reason::ToolUnknown
            })
        })
    }

    /// How the agent may get a prompt, or why not.
    pub(in crate::policy) fn prompt(&self, policy: &CompiledPolicy, name: &str) -> Result<&Grant, Reason> {
        self.prompts.get(name).unwrap_or_else(|| {
            Err(if policy.prompts.get(name).is_some() {
                Reason::PromptNotGranted
            } else {
                Reason::PromptUnknown
            })
        })
    }

    /// By which rule the agent may read a resource, or why not. Of several an exact one is its rule, and else the first:
    /// whoever has no role for that one may not read it by another.
    pub(in crate::policy) fn resource(&self, uri: &str) -> Result<&ResourceGrant, Reason> {
        let mut rules = self.resources.iter();
        let exact = rules.find(|rule| rule.grant.is_exact() && rule.grant.uri == uri);
        let Covering { grant, .. } = exact
            .or_else(|| self.covering(uri))
            .filter(|rule| rule.is_granted)
            .ok_or(Reason::ResourceNotGranted)?;
        grant.blocked.map_or(Ok(grant), Err)
    }

    /// The first template that covers a URI, if no rule before it may be of the same one, written in another way.
    fn covering(&self, uri: &str) -> Option<&Covering> {
        let index = self.resources.iter().position(|rule| rule.grant.covers(uri))?;
        let (before, from) = self.resources.split_at(index);
        let found = from.first()?;
        let mut exact = from.iter().filter(|rule| rule.grant.is_exact());
        let is_respelt = |rule: &Covering| rule.grant.is_respelt(uri, &found.grant);
        if before.iter().any(is_respelt) || exact.any(is_respelt) {
            return None;
        }
        Some(found)
    }

    /// By which rule the agent is told of a resource, or why not: of a filtered template's none, since a URI can be the name
    /// of somebody else's record.
    pub(in crate::policy) fn resource_shown(&self, uri: &str) -> Result<&ResourceGrant, Reason> {
        let grant = self.resource(uri)?;
        if grant.names_records() {
            return Err(Reason::ResourceNotGranted);
        }
        Ok(grant)
    }

    /// The grant of a template, as the server writes it.
    pub(in crate::policy) fn template(&self, template: &str) -> Option<&ResourceGrant> {
        self.resources().find(|grant| grant.is_template(template))
    }

    /// Whether values for a template's variables may be told: not where they could be those of records, or of resources that
    /// by a rule before it aren't the agent's to know of.
    pub(in crate::policy) fn completes(&self, grant: &ResourceGrant) -> bool {
        let before = |rule: &&Covering| !std::ptr::eq(&raw const *rule.grant, grant);
        let mut first = self.resources.iter().take_while(before);
        let exact = self.resources.iter().filter(|rule| rule.grant.is_exact());
        let is_hidden = |rule: &Covering| {
            let is_told = rule.is_granted && rule.grant.blocked.is_none() && !rule.grant.names_records();
            !is_told && grant.may_meet(&rule.grant)
        };
        !grant.names_records() && !first.by_ref().chain(exact).any(is_hidden)
    }

    /// The grants of the agent's resources and templates.
    pub(in crate::policy) fn resources(&self) -> impl Iterator<Item = &ResourceGrant> {
        let granted = self.resources.iter().filter(|rule| rule.is_granted);
        let granted = granted.map(|rule| &*rule.grant);
        granted.filter(|grant| grant.blocked.is_none())
    }

    pub(in crate::policy) fn has_prompts(&self) -> bool {
        self.prompts.any()
    }

    pub(in crate::policy) fn has_resources(&self) -> bool {
        self.resources().next().is_some()
    }
}

/// What is wrong with agents as they are written.
pub(super) fn check(agents: &[Agent], issuers: &[Issuer]) -> Result<(), CompileError> {
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
