//! The tools of a server: references of forced values are followed here, so that the policy
//! document holds values and nothing to look up but the agent's own facts. Whether the document
//! as a whole makes sense, the sidecar's own compiler says.

use std::collections::BTreeMap;

use bulkhead_api::{
    McpTenant,
    tenant::{Bounds as BoundsSpec, ForcedValue, IdentityKey, Tool as ToolSpec},
};
use bulkhead_core::policy::document::{Bounds, Forced, Tool};

use super::{Findings, Reason};

/// Checks the tools of a server.
pub(super) fn tools(
    tools: &[ToolSpec],
    tenant: &McpTenant,
    path: &str,
    findings: &mut Findings,
) -> Vec<Tool> {
    findings.unique(path, tools.iter().map(|tool| tool.name.as_str()));
    let mut checked = Vec::new();
    for (index, tool) in tools.iter().enumerate() {
        let path = format!("{path}[{index}]");
        if tool.name.is_empty() {
            findings.add(Reason::InvalidName, format!("{path}.name"), "name the tool");
        }
        let mut forced = BTreeMap::new();
        for (argument, value) in &tool.arguments.forced {
            let path = format!("{path}.arguments.forced[{argument}]");
            if let Some(value) = resolve(value, tool, tenant, &path, findings) {
                forced.insert(argument.clone(), value);
            }
        }
        let bounds = tool.arguments.bounds.iter();
        checked.push(Tool {
            name: tool.name.clone(),
            roles: tool.roles.iter().cloned().collect(),
            forced,
            bounds: bounds
                .map(|(argument, rule)| (argument.clone(), bounds_of(rule)))
                .collect(),
        });
    }
    checked
}

/// A forced value with the tenant's own values in place.
fn resolve(
    value: &ForcedValue,
    tool: &ToolSpec,
    tenant: &McpTenant,
    path: &str,
    findings: &mut Findings,
) -> Option<Forced> {
    match value {
        ForcedValue {
            identity: Some(IdentityKey::TenantId),
            attribute: None,
            agent: None,
            string: None,
            int: None,
            bool: None,
        } => Some(Forced::String(tenant.spec.identity.tenant_id.clone())),
        ForcedValue {
            identity: None,
            attribute: Some(name),
            agent: None,
            string: None,
            int: None,
            bool: None,
        } => {
            let value = tenant.spec.attributes.get(name);
            if value.is_none() {
                let message = format!("spec.attributes has no `{name}`: add it there, or correct the name");
                findings.add(Reason::UnknownReference, path, message);
            }
            value.cloned().map(Forced::String)
        }
        ForcedValue {
            identity: None,
            attribute: None,
            agent: Some(name),
            string: None,
            int: None,
            bool: None,
        } => {
            agents_have(name, tool, tenant, path, findings);
            Some(Forced::Agent(name.clone()))
        }
        ForcedValue {
            identity: None,
            attribute: None,
            agent: None,
            string: Some(text),
            int: None,
            bool: None,
        } => Some(Forced::String(text.clone())),
        ForcedValue {
            identity: None,
            attribute: None,
            agent: None,
            string: None,
            int: Some(number),
            bool: None,
        } => Some(Forced::Int(*number)),
        ForcedValue {
            identity: None,
            attribute: None,
            agent: None,
            string: None,
            int: None,
            bool: Some(truth),
        } => Some(Forced::Bool(*truth)),
        _ => {
            let message = "give exactly one of identity, attribute, agent, string, int and bool";
            findings.add(Reason::InvalidToolRule, path, message);
            None
        }
    }
}

/// Every agent that may call the tool must have the attribute, or its calls could only fail.
fn agents_have(attribute: &str, tool: &ToolSpec, tenant: &McpTenant, path: &str, findings: &mut Findings) {
    for agent in &tenant.spec.agents {
        let may_call = agent.roles.iter().any(|role| tool.roles.contains(role));
        if may_call && !agent.attributes.contains_key(attribute) {
            findings.add(
                Reason::UnknownReference,
                path,
                format!(
                    "agent `{}` may call `{}` and has no attribute `{attribute}`: give it one, or take the role away",
                    agent.name, tool.name
                ),
            );
        }
    }
}

fn bounds_of(bounds: &BoundsSpec) -> Bounds {
    Bounds {
        required: bounds.required,
        minimum: bounds.minimum,
        maximum: bounds.maximum,
        min_length: bounds.min_length,
        max_length: bounds.max_length,
        max_items: bounds.max_items,
        pattern: bounds.pattern.clone(),
        one_of: bounds.one_of.iter().cloned().collect(),
    }
}
