//! Policy document → compiled policy: everything checked, everything resolved per agent, so that a
//! decision is a look-up. A document that isn't understood in full is refused in full.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use thiserror::Error;

use crate::{
    json::{
        self, Limits,
        text::{quoted, same_ignoring_case},
    },
    policy::{
        bounds::{self, CompiledBounds},
        document::{Agent, FORMAT, Forced, PolicyDocument, Tenant, Tool, Upstream},
    },
    reason::Reason,
};

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
    hostnames: BTreeSet<String>,
    upstream: Upstream,
    /// By SPIFFE ID.
    agents: HashMap<Arc<str>, CompiledAgent>,
    tools: HashMap<Arc<str>, Arc<ToolRule>>,
}

/// An agent and what it may call.
#[derive(Debug)]
pub struct CompiledAgent {
    name: Arc<str>,
    spiffe_id: Arc<str>,
    tools: HashMap<Arc<str>, Result<Grant, Reason>>,
}

/// The rule of a tool, for whomever it exists.
#[derive(Debug)]
pub(super) struct ToolRule {
    pub name: Arc<str>,
    /// `tools[NAME]`
    pub rule: Arc<str>,
    /// Names of forced arguments.
    pub forced: Vec<Arc<str>>,
    pub bounds: Vec<BoundRule>,
}

/// The bounds of an argument.
#[derive(Debug)]
pub(super) struct BoundRule {
    pub argument: Arc<str>,
    /// `tools[NAME].bounds[ARGUMENT]`
    pub rule: Arc<str>,
    pub bounds: CompiledBounds,
}

/// A tool as one agent may call it.
#[derive(Debug)]
pub(super) struct Grant {
    pub tool: Arc<ToolRule>,
    pub forced: Vec<ForcedArgument>,
}

/// An argument that is set.
#[derive(Debug)]
pub(super) struct ForcedArgument {
    pub name: Arc<str>,
    /// The value, as JSON.
    pub value: String,
}

fn invalid(part: impl Into<String>, problem: impl Into<String>) -> CompileError {
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
            agents,
            tools,
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
        let rules = compile_tools(&tools)?;
        let agents = compile_agents(agents, &tools, &rules)?;
        Ok(Self {
            revision: revision.into(),
            tenant,
            server,
            hostnames,
            upstream,
            agents,
            tools: rules,
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

    /// Host names that clients may use, without port, lower case.
    pub fn hostnames(&self) -> &BTreeSet<String> {
        &self.hostnames
    }

    /// Where the server listens.
    pub fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// The agent with this SPIFFE ID, exactly. `None` may do nothing.
    pub fn agent(&self, spiffe_id: &str) -> Option<&CompiledAgent> {
        self.agents.get(spiffe_id)
    }

    /// The rule of a tool, whoever may call it.
    pub(super) fn tool(&self, name: &str) -> Option<&Arc<ToolRule>> {
        self.tools.get(name)
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

    /// How the agent may call a tool, or why not.
    pub(super) fn grant(&self, policy: &CompiledPolicy, tool: &str) -> Result<&Grant, Reason> {
        match self.tools.get(tool) {
            Some(Ok(grant)) => Ok(grant),
            Some(Err(reason)) => Err(*reason),
            None if policy.tools.contains_key(tool) => Err(Reason::ToolNotGranted),
            None => Err(Reason::ToolUnknown),
        }
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

fn compile_tools(tools: &[Tool]) -> Result<HashMap<Arc<str>, Arc<ToolRule>>, CompileError> {
    let mut rules: HashMap<Arc<str>, Arc<ToolRule>> = HashMap::with_capacity(tools.len());
    for tool in tools {
        let rule = compile_tool(tool)?;
        if rules.insert(rule.name.clone(), Arc::new(rule)).is_some() {
            return Err(invalid(format!("tools[{}]", tool.name), "is there twice"));
        }
    }
    Ok(rules)
}

fn compile_tool(tool: &Tool) -> Result<ToolRule, CompileError> {
    let rule = format!("tools[{}]", tool.name);
    if tool.name.is_empty() {
        return Err(invalid(rule, "has no name"));
    }
    let ruled: Vec<_> = tool.forced.keys().chain(tool.bounds.keys()).collect();
    for (index, name) in ruled.iter().enumerate() {
        if name.is_empty() {
            return Err(invalid(rule, "has a rule for an argument without a name"));
        }
        if ruled[..index].iter().any(|other| same_ignoring_case(other, name)) {
            let problem = "is forced and bounded, or has rules for names that differ in case only";
            return Err(invalid(format!("{rule}, argument {name},"), problem));
        }
    }
    for (name, forced) in &tool.forced {
        if matches!(forced, Forced::Agent(attribute) if attribute.is_empty()) {
            return Err(invalid(format!("{rule}.forced[{name}]"), "names no attribute"));
        }
    }
    let bounds = tool.bounds.iter().map(|(name, bounds)| {
        let rule = format!("{rule}.bounds[{name}]");
        match bounds::compile(bounds) {
            Ok(bounds) => Ok(BoundRule {
                argument: name.as_str().into(),
                rule: rule.into(),
                bounds,
            }),
            Err(problem) => Err(invalid(rule, problem)),
        }
    });
    Ok(ToolRule {
        name: tool.name.as_str().into(),
        forced: tool.forced.keys().map(|name| name.as_str().into()).collect(),
        bounds: bounds.collect::<Result<_, _>>()?,
        rule: rule.into(),
    })
}

fn compile_agents(
    agents: Vec<Agent>,
    tools: &[Tool],
    rules: &HashMap<Arc<str>, Arc<ToolRule>>,
) -> Result<HashMap<Arc<str>, CompiledAgent>, CompileError> {
    let mut names = BTreeSet::new();
    let mut compiled = HashMap::with_capacity(agents.len());
    for agent in agents {
        let part = format!("agents[{}]", agent.name);
        if agent.name.is_empty() || !names.insert(agent.name.clone()) {
            return Err(invalid(part, "has no name, or one that another agent has"));
        }
        if !agent.spiffe_id.starts_with("spiffe://") {
            return Err(invalid(part, "has no SPIFFE ID"));
        }
        let spiffe_id: Arc<str> = agent.spiffe_id.into();
        let granted = tools
            .iter()
            .filter(|tool| !tool.roles.is_disjoint(&agent.roles))
            .filter_map(|tool| rules.get(tool.name.as_str()).map(|rule| (tool, rule)))
            .map(|(tool, rule)| (rule.name.clone(), resolve(tool, rule, &agent.attributes)))
            .collect();
        let agent = CompiledAgent {
            name: agent.name.into(),
            spiffe_id: spiffe_id.clone(),
            tools: granted,
        };
        if compiled.insert(spiffe_id, agent).is_some() {
            return Err(invalid(part, "has the SPIFFE ID of another agent"));
        }
    }
    Ok(compiled)
}

fn resolve(
    tool: &Tool,
    rule: &Arc<ToolRule>,
    attributes: &BTreeMap<String, String>,
) -> Result<Grant, Reason> {
    let forced = rule.forced.iter().map(|name| {
        let value = match tool.forced.get(name.as_ref()) {
            Some(Forced::String(text)) => quoted(text),
            Some(Forced::Int(int)) => int.to_string(),
            Some(Forced::Bool(value)) => value.to_string(),
            Some(Forced::Agent(attribute)) => {
                quoted(attributes.get(attribute).ok_or(Reason::AgentAttributeMissing)?)
            }
            None => return Err(Reason::AgentAttributeMissing),
        };
        Ok(ForcedArgument {
            name: name.clone(),
            value,
        })
    });
    Ok(Grant {
        tool: rule.clone(),
        forced: forced.collect::<Result<_, _>>()?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn document() -> Value {
        json!({
            "format": 1,
            "tenant": {"name": "acme", "uid": "u"},
            "server": "crm",
            "hostnames": ["crm.acme.svc"],
            "upstream": {"port": 3000, "path": "/mcp"},
            "agents": [
                {"name": "billing", "spiffeId": "spiffe://acme/billing", "roles": ["reader"], "attributes": {"place": "nyc"}},
                {"name": "other", "spiffeId": "spiffe://acme/other", "roles": ["reader"]},
                {"name": "idle", "spiffeId": "spiffe://acme/idle", "roles": []}
            ],
            "tools": [
                {"name": "list", "roles": ["reader"], "forced": {"place": {"agent": "place"}, "n": {"int": 7}}, "bounds": {"limit": {"maximum": 1}}},
                {"name": "delete", "roles": ["admin"]},
                {"name": "nobody", "roles": []}
            ]
        })
    }

    fn compile(document: &Value) -> Result<CompiledPolicy, CompileError> {
        CompiledPolicy::from_json(document.to_string().as_bytes())
    }

    #[test]
    fn each_agent_has_what_its_roles_and_attributes_give() {
        let policy = compile(&document()).unwrap();
        let reason = |agent: &str, tool: &str| {
            policy
                .agent(&format!("spiffe://acme/{agent}"))
                .unwrap()
                .grant(&policy, tool)
                .err()
        };
        assert_eq!(reason("billing", "list"), None);
        assert_eq!(reason("billing", "delete"), Some(Reason::ToolNotGranted));
        assert_eq!(reason("billing", "nobody"), Some(Reason::ToolNotGranted));
        assert_eq!(reason("billing", "drop"), Some(Reason::ToolUnknown));
        assert_eq!(reason("other", "list"), Some(Reason::AgentAttributeMissing));
        assert_eq!(reason("idle", "list"), Some(Reason::ToolNotGranted));
        assert!(policy.agent("spiffe://acme/unknown").is_none());
        assert!(policy.agent("spiffe://acme/Billing").is_none());
    }

    #[test]
    fn a_document_that_is_wrong_anywhere_is_refused_in_full() {
        let cases: &[(&str, Value)] = &[
            ("/format", json!(2)),
            ("/tenant/uid", json!("")),
            ("/server", json!("")),
            ("/hostnames/0", json!("CRM.acme.svc")),
            ("/upstream/port", json!(0)),
            ("/upstream/path", json!("mcp")),
            ("/upstream/path", json!("/a b")),
            ("/agents/0/name", json!("")),
            ("/agents/0/name", json!("other")),
            ("/agents/0/spiffeId", json!("spiffe://acme/other")),
            ("/agents/0/spiffeId", json!("https://acme/other")),
            ("/tools/0/name", json!("")),
            ("/tools/0/name", json!("delete")),
            ("/tools/0/forced", json!({"limit": {"int": 1}})),
            ("/tools/0/forced", json!({"Limit": {"int": 1}})),
            ("/tools/0/forced", json!({"a": {"int": 1}, "A": {"int": 1}})),
            ("/tools/0/forced", json!({"": {"int": 1}})),
            ("/tools/0/forced", json!({"a": {"agent": ""}})),
            ("/tools/0/forced", json!({"a": {"float": 1.5}})),
            ("/tools/0/forced", json!({"a": {"int": 1, "bool": true}})),
            (
                "/tools/0/forced",
                json!({"a": {"int": 9_223_372_036_854_775_808_u64}}),
            ),
            ("/tools/0/bounds", json!({"a": {}})),
            ("/tools/0/bounds", json!({"a": {"max": 1}})),
            ("/tools/0/bounds", json!({"a": {"pattern": "("}})),
        ];
        for (pointer, value) in cases {
            let mut document = document();
            *document.pointer_mut(pointer).unwrap() = value.clone();
            assert!(compile(&document).is_err(), "{pointer} {value}");
        }
        let mut unknown = document();
        unknown["enforcement"] = json!("Report");
        assert!(matches!(compile(&unknown), Err(CompileError::Shape(_))));
    }

    #[test]
    fn a_key_twice_in_the_document_is_refused() {
        let twice = document().to_string().replace(
            r#""forced":{"#,
            r#""forced":{"tenant_id":{"string":"a"},"tenant_id":{"string":"b"},"#,
        );
        assert_eq!(
            CompiledPolicy::from_json(twice.as_bytes()).unwrap_err(),
            CompileError::Json(Reason::DuplicateKey)
        );
    }
}
