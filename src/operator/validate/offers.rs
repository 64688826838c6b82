//! The tools, prompts and resources of a server: references of forced values are followed here, so
//! that the policy document holds values and nothing to look up but the agent's own facts. Whether
//! the document as a whole makes sense, the sidecar's own compiler says.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_api::{
    McpTenant,
    tenant::{
        ArgumentType as TypeSpec, Arguments, Bounds as BoundsSpec, ClientFeatures as FeaturesSpec,
        ElicitationMode as ModeSpec, Enforcement as EnforcementSpec, ForcedValue, IdentityKey,
        Resource as ResourceSpec, Results as ResultsSpec, Server as ServerSpec,
    },
};
use bulkhead_core::policy::document::{
    ArgumentType, Bounds, Callable, ClientFeatures, ElicitationMode, Enforcement, Forced, Owned, Resource,
    Results,
};

use super::{Findings, Reason};

/// What may be used on a server, with the tenant's values in place.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Offers {
    /// The tools.
    pub tools: Vec<Callable>,
    /// The prompts.
    pub prompts: Vec<Callable>,
    /// The MCP resources.
    pub resources: Vec<Resource>,
    /// The definitions of its `instructions` that clients get.
    pub instructions: BTreeSet<String>,
    /// What the server may ask of its clients.
    pub client_features: ClientFeatures,
}

/// A tool or a prompt as it is written.
#[derive(Clone, Copy)]
struct Spec<'a> {
    name: &'a str,
    roles: &'a [String],
    arguments: &'a Arguments,
    definitions: &'a [String],
    results: Option<&'a ResultsSpec>,
}

/// Something of a server that some roles may use.
#[derive(Clone, Copy)]
struct Offer<'a> {
    tenant: &'a McpTenant,
    name: &'a str,
    roles: &'a [String],
}

/// Checks what a server offers.
pub(super) fn offers(server: &ServerSpec, tenant: &McpTenant, path: &str, findings: &mut Findings) -> Offers {
    let tools = server.tools.iter().map(|tool| Spec {
        name: &tool.name,
        roles: &tool.roles,
        arguments: &tool.arguments,
        definitions: &tool.definitions,
        results: tool.results.as_ref(),
    });
    let prompts = server.prompts.iter().map(|prompt| Spec {
        name: &prompt.name,
        roles: &prompt.roles,
        arguments: &prompt.arguments,
        definitions: &prompt.definitions,
        results: None,
    });
    Offers {
        tools: callables(tools, tenant, &format!("{path}.tools"), findings),
        prompts: callables(prompts, tenant, &format!("{path}.prompts"), findings),
        resources: resources(
            &server.mcp_resources,
            tenant,
            &format!("{path}.mcpResources"),
            findings,
        ),
        instructions: server.instructions.iter().cloned().collect(),
        client_features: features(&server.client_features),
    }
}

fn callables<'a>(
    callables: impl Iterator<Item = Spec<'a>> + Clone,
    tenant: &McpTenant,
    path: &str,
    findings: &mut Findings,
) -> Vec<Callable> {
    findings.unique(path, callables.clone().map(|spec| spec.name));
    let mut checked = Vec::new();
    for (index, spec) in callables.enumerate() {
        let Spec {
            name,
            roles,
            arguments,
            definitions,
            results,
        } = spec;
        let path = format!("{path}[{index}]");
        if name.is_empty() {
            findings.add(Reason::InvalidName, format!("{path}.name"), "must not be empty");
        }
        let offer = Offer { tenant, name, roles };
        let results =
            results.and_then(|results| offer.results(results, &format!("{path}.results"), findings));
        let path = format!("{path}.arguments.forced");
        let bounds = arguments.bounds.iter();
        checked.push(Callable {
            name: name.to_owned(),
            roles: roles.iter().cloned().collect(),
            forced: offer.forced(&arguments.forced, &path, findings),
            bounds: bounds
                .map(|(argument, rule)| (argument.clone(), bounds_of(rule)))
                .collect(),
            forbidden: arguments.forbidden.iter().cloned().collect(),
            definitions: definitions.iter().cloned().collect(),
            results,
        });
    }
    checked
}

fn resources(
    resources: &[ResourceSpec],
    tenant: &McpTenant,
    path: &str,
    findings: &mut Findings,
) -> Vec<Resource> {
    findings.unique(path, resources.iter().map(|resource| resource.uri.as_str()));
    let mut checked = Vec::new();
    for (index, resource) in resources.iter().enumerate() {
        let offer = Offer {
            tenant,
            name: &resource.uri,
            roles: &resource.roles,
        };
        let path = format!("{path}[{index}]");
        let results = resource.results.as_ref();
        checked.push(Resource {
            results: results.and_then(|results| offer.results(results, &format!("{path}.results"), findings)),
            uri: resource.uri.clone(),
            roles: resource.roles.iter().cloned().collect(),
            forced: offer.forced(&resource.forced, &format!("{path}.forced"), findings),
        });
    }
    checked
}

fn features(features: &FeaturesSpec) -> ClientFeatures {
    let modes = features.elicitation.iter().map(|mode| match mode {
        ModeSpec::Form => ElicitationMode::Form,
        ModeSpec::Url => ElicitationMode::Url,
    });
    ClientFeatures {
        sampling: features.sampling,
        elicitation: modes.collect(),
        roots: features.roots,
        logging: features.logging,
    }
}

impl Offer<'_> {
    /// `None` also when the owner isn't known: then there is a finding, and nothing is built.
    fn results(self, results: &ResultsSpec, path: &str, findings: &mut Findings) -> Option<Results> {
        let owned = match &results.owned {
            None => None,
            Some(owned) => Some(Owned {
                path: owned.path.clone(),
                field: owned.field.clone(),
                equals: resolve(&owned.equals, self, &format!("{path}.owned.equals"), findings)?,
            }),
        };
        Some(Results {
            owned,
            max_records: results.max_records,
            max_bytes: results.max_bytes,
            enforcement: enforcement_of(results.enforcement),
        })
    }

    fn forced(
        self,
        values: &BTreeMap<String, ForcedValue>,
        path: &str,
        findings: &mut Findings,
    ) -> BTreeMap<String, Forced> {
        let mut forced = BTreeMap::new();
        for (argument, value) in values {
            let path = format!("{path}[{argument}]");
            if let Some(value) = resolve(value, self, &path, findings) {
                forced.insert(argument.clone(), value);
            }
        }
        forced
    }
}

/// A forced value with the tenant's own values in place.
fn resolve(value: &ForcedValue, offer: Offer<'_>, path: &str, findings: &mut Findings) -> Option<Forced> {
    let ForcedValue {
        identity,
        attribute,
        agent,
        claim,
        string,
        int,
        bool,
    } = value;
    let sources = [
        identity.map(Source::Identity),
        attribute.as_deref().map(Source::Attribute),
        agent.as_deref().map(Source::Agent),
        claim.as_deref().map(Source::Claim),
        string.as_deref().map(Source::String),
        int.map(Source::Int),
        bool.map(Source::Bool),
    ];
    let mut given = sources.into_iter().flatten();
    let (Some(source), None) = (given.next(), given.next()) else {
        let message = "give exactly one of identity, attribute, agent, claim, string, int and bool";
        findings.add(Reason::InvalidToolRule, path, message);
        return None;
    };
    let spec = &offer.tenant.spec;
    match source {
        Source::Identity(IdentityKey::TenantId) => Some(Forced::String(spec.identity.tenant_id.clone())),
        Source::Attribute(name) => {
            let value = spec.attributes.get(name);
            if value.is_none() {
                let message = format!("spec.attributes has no `{name}`: add it there, or correct the name");
                findings.add(Reason::UnknownReference, path, message);
            }
            value.cloned().map(Forced::String)
        }
        Source::Agent(name) => {
            agents_have(name, offer, path, findings);
            Some(Forced::Agent(name.to_owned()))
        }
        Source::Claim(name) => {
            if spec.issuers.is_empty() {
                let message = "takes a claim, and nobody's would be believed: name the issuer of the tokens in spec.issuers";
                findings.add(Reason::UnknownReference, path, message);
            }
            Some(Forced::Claim(name.to_owned()))
        }
        Source::String(text) => Some(Forced::String(text.to_owned())),
        Source::Int(number) => Some(Forced::Int(number)),
        Source::Bool(truth) => Some(Forced::Bool(truth)),
    }
}

/// Where a forced value comes from.
enum Source<'a> {
    Identity(IdentityKey),
    Attribute(&'a str),
    Agent(&'a str),
    Claim(&'a str),
    String(&'a str),
    Int(i64),
    Bool(bool),
}

/// Every agent that may use it must have the attribute, or it could only fail.
fn agents_have(attribute: &str, offer: Offer<'_>, path: &str, findings: &mut Findings) {
    for agent in &offer.tenant.spec.agents {
        let may_call = agent.roles.iter().any(|role| offer.roles.contains(role));
        if may_call && !agent.attributes.contains_key(attribute) {
            findings.add(
                Reason::UnknownReference,
                path,
                format!(
                    "agent `{}` may call `{}` and has no attribute `{attribute}`: give it one, or take the role away",
                    agent.name, offer.name
                ),
            );
        }
    }
}

fn bounds_of(bounds: &BoundsSpec) -> Bounds {
    Bounds {
        required: bounds.required,
        kind: bounds.kind.map(type_of),
        minimum: bounds.minimum,
        maximum: bounds.maximum,
        min_length: bounds.min_length,
        max_length: bounds.max_length,
        min_items: bounds.min_items,
        max_items: bounds.max_items,
        pattern: bounds.pattern.clone(),
        one_of: bounds.one_of.iter().cloned().collect(),
        enforcement: enforcement_of(bounds.enforcement),
    }
}

fn enforcement_of(enforcement: Option<EnforcementSpec>) -> Enforcement {
    match enforcement {
        None | Some(EnforcementSpec::Enforce) => Enforcement::Enforce,
        Some(EnforcementSpec::Report) => Enforcement::Report,
    }
}

fn type_of(kind: TypeSpec) -> ArgumentType {
    match kind {
        TypeSpec::String => ArgumentType::String,
        TypeSpec::Number => ArgumentType::Number,
        TypeSpec::Integer => ArgumentType::Integer,
        TypeSpec::Boolean => ArgumentType::Boolean,
        TypeSpec::Array => ArgumentType::Array,
        TypeSpec::Object => ArgumentType::Object,
    }
}
