//! `docs/api.md`: every field with its type, default, bounds, meaning and rules, from the schema.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use bulkhead_api::McpTenant;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt as _;

use crate::Generated;

/// What no field can say.
const INTRODUCTION: &str = include_str!("introduction.md");

/// The reference.
pub(crate) fn file() -> Result<Generated> {
    let crd = McpTenant::crd();
    let schema = schema(&crd).context("the CRD has a schema")?;
    let properties = schema.properties.as_ref().context("the schema has properties")?;

    let mut page = String::from(INTRODUCTION);
    page.push_str("\n## Rules about the whole\n\n");
    rules(&mut page, schema, "");
    for part in ["spec", "status"] {
        let root = properties
            .get(part)
            .with_context(|| format!("the schema has {part}"))?;
        write!(page, "\n## `{part}`\n\n{}\n", sentence(root))?;
        rules(&mut page, root, "\n");
        fields(&mut page, part, root)?;
    }
    Ok(Generated {
        path: "docs/api.md",
        content: page,
    })
}

fn schema(crd: &CustomResourceDefinition) -> Option<&JSONSchemaProps> {
    crd.spec
        .versions
        .first()?
        .schema
        .as_ref()?
        .open_api_v3_schema
        .as_ref()
}

/// The fields below `path`, a heading each, in the order of the schema.
fn fields(page: &mut String, path: &str, parent: &JSONSchemaProps) -> Result<()> {
    for (name, field) in parent.properties.iter().flatten() {
        let required = parent.required.iter().flatten().any(|required| required == name);
        let path = format!("{path}.{name}");
        write!(page, "\n### `{path}`\n\n{}", kind(field))?;
        if required {
            page.push_str(", required");
        }
        if let Some(default) = &field.default {
            write!(page, ", default `{}`", serde_json::to_string(&default.0)?)?;
        }
        for bound in bounds(field) {
            write!(page, ", {bound}")?;
        }
        page.push_str(".\n");
        for (of, part) in [("Each item", items(field)), ("Each value", values(field))] {
            if let Some(part) = part
                && part.properties.is_none()
            {
                let bounds = bounds(part);
                if !bounds.is_empty() {
                    writeln!(page, "{of}: {}.", bounds.join(", "))?;
                }
            }
        }
        write!(page, "\n{}\n", sentence(field))?;
        rules(page, field, "\n");
        if let Some(item) = items(field) {
            rules(page, item, "\nOf each item:\n\n");
            fields(page, &format!("{path}[]"), item)?;
        } else if let Some(value) = values(field) {
            rules(page, value, "\nOf each value:\n\n");
            fields(page, &format!("{path}.*"), value)?;
        } else {
            fields(page, &path, field)?;
        }
    }
    Ok(())
}

/// The messages of the CEL rules at this place.
fn rules(page: &mut String, schema: &JSONSchemaProps, lead: &str) {
    let mut messages: Vec<&str> = schema
        .x_kubernetes_validations
        .iter()
        .flatten()
        .filter_map(|rule| rule.message.as_deref())
        .collect();
    // One thing to say may take two rules.
    messages.dedup();
    if messages.is_empty() {
        return;
    }
    page.push_str(lead);
    for message in messages {
        page.push_str("- Rule: ");
        page.push_str(message);
        page.push_str(".\n");
    }
}

/// What a field holds, as a person says it.
fn kind(field: &JSONSchemaProps) -> String {
    let name = field.type_.as_deref().unwrap_or("any");
    if let Some(item) = items(field) {
        let how = match field.x_kubernetes_list_type.as_deref() {
            Some("map") => {
                format!(
                    "merged by `{}`",
                    field
                        .x_kubernetes_list_map_keys
                        .iter()
                        .flatten()
                        .cloned()
                        .collect::<Vec<_>>()
                        .join("`, `")
                )
            }
            _ => "replaced as a whole".into(),
        };
        return format!("list of {}, {how}", item.type_.as_deref().unwrap_or("any"));
    }
    if let Some(value) = values(field) {
        return format!("map of {}", value.type_.as_deref().unwrap_or("any"));
    }
    match &field.enum_ {
        Some(choices) => {
            let choices: Vec<String> = choices
                .iter()
                .map(|choice| format!("`{}`", choice.0.as_str().unwrap_or("?")))
                .collect();
            format!("one of {}", choices.join(", "))
        }
        None => name.to_owned(),
    }
}

fn bounds(field: &JSONSchemaProps) -> Vec<String> {
    let mut bounds = Vec::new();
    let range = |least: Option<String>, most: Option<String>, what: &str| match (least, most) {
        (Some(least), Some(most)) if least == most => Some(format!("exactly {least}{what}")),
        (Some(least), Some(most)) => Some(format!("{least} to {most}{what}")),
        (Some(least), None) => Some(format!("at least {least}{what}")),
        (None, Some(most)) => Some(format!("at most {most}{what}")),
        (None, None) => None,
    };
    let number = |value: Option<f64>| value.map(|value| format!("{value}"));
    let count = |value: Option<i64>| value.map(|value| value.to_string());
    bounds.extend(range(number(field.minimum), number(field.maximum), ""));
    bounds.extend(range(
        count(field.min_length),
        count(field.max_length),
        " characters",
    ));
    bounds.extend(range(count(field.min_items), count(field.max_items), " items"));
    bounds.extend(range(
        count(field.min_properties),
        count(field.max_properties),
        " entries",
    ));
    if let Some(pattern) = &field.pattern {
        bounds.push(format!("matching `{pattern}`"));
    }
    bounds
}

/// The description as one paragraph.
fn sentence(field: &JSONSchemaProps) -> String {
    field
        .description
        .as_deref()
        .unwrap_or_default()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

fn items(field: &JSONSchemaProps) -> Option<&JSONSchemaProps> {
    match field.items.as_ref()? {
        JSONSchemaPropsOrArray::Schema(item) => Some(item),
        JSONSchemaPropsOrArray::Schemas(_) => None,
    }
}

fn values(field: &JSONSchemaProps) -> Option<&JSONSchemaProps> {
    match field.additional_properties.as_ref()? {
        JSONSchemaPropsOrBool::Schema(value) => Some(value),
        JSONSchemaPropsOrBool::Bool(_) => None,
    }
}
