//! From YAML to tenants, as strictly as the API server reads what `kubectl apply` sends.

use anyhow::{Context as _, Result, bail};
use bulkhead_api::McpTenant;
use serde_json::Value;

/// The tenants of a text of one or more documents; JSON is YAML too.
pub fn tenants(text: &str) -> Result<Vec<McpTenant>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).context("not YAML")?;
    let mut tenants = Vec::new();
    for document in documents {
        match document {
            Value::Null => {}
            // What `kubectl get -o yaml` gives for several.
            Value::Object(mut list) if list.get("kind") == Some(&"List".into()) => {
                let Some(Value::Array(items)) = list.remove("items") else {
                    bail!("a List without items")
                };
                for item in items {
                    tenants.push(tenant(item)?);
                }
            }
            document => tenants.push(tenant(document)?),
        }
    }
    Ok(tenants)
}

fn tenant(document: Value) -> Result<McpTenant> {
    let text = |key: &str| document[key].as_str().unwrap_or("(none)").to_owned();
    if (text("apiVersion").as_str(), text("kind").as_str()) != ("bulkhead.dev/v1alpha1", "McpTenant") {
        bail!(
            "{} of {} is no McpTenant of bulkhead.dev/v1alpha1",
            text("kind"),
            text("apiVersion")
        );
    }
    let name = document["metadata"]["name"]
        .as_str()
        .unwrap_or("(no name)")
        .to_owned();
    let spec = document["spec"].clone();
    let tenant: McpTenant = serde_json::from_value(document).with_context(|| format!("tenant {name}"))?;
    // A misspelt field would be dropped without a word, and with it the rule that it was meant to be.
    if let Some(path) = unknown(&spec, &serde_json::to_value(&tenant.spec)?, "spec") {
        bail!("tenant {name}: unknown field {path}");
    }
    Ok(tenant)
}

/// The first field of the input that the type doesn't have. Empty values don't count: the type leaves them out too.
fn unknown(input: &Value, kept: &Value, path: &str) -> Option<String> {
    match (input, kept) {
        (Value::Object(input), Value::Object(kept)) => input.iter().find_map(|(key, value)| {
            let path = format!("{path}.{key}");
            match kept.get(key) {
                Some(kept) => unknown(value, kept, &path),
                None if is_empty(value) => None,
                None => Some(path),
            }
        }),
        (Value::Array(input), Value::Array(kept)) => {
            let pairs = input.iter().zip(kept).enumerate();
            pairs
                .into_iter()
                .find_map(|(index, (input, kept))| unknown(input, kept, &format!("{path}[{index}]")))
        }
        _ => None,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.values().all(is_empty),
        Value::Bool(true) | Value::Number(_) | Value::String(_) => false,
    }
}
