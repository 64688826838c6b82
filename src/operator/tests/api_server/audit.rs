//! What the API server's audit log says that the operator did.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::Value;

/// One request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Request {
    pub verb: String,
    pub group: String,
    /// With its subresource.
    pub resource: String,
    pub namespace: String,
    pub name: String,
    pub code: u64,
}

impl Request {
    pub fn is_mutating(&self) -> bool {
        // A review is a question, and nothing is kept of it.
        !matches!(self.verb.as_str(), "get" | "list" | "watch") && self.resource != "tokenreviews"
    }
}

/// Every request of a user so far that the API server has answered, in order.
pub fn requests(log: &Path, user: &str) -> Vec<Request> {
    let log = fs::read_to_string(log).unwrap();
    log.lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|event| event["user"]["username"] == user)
        // A watch that still runs has only begun its answer.
        .filter(|event| {
            event["stage"] == "ResponseComplete"
                || (event["stage"] == "ResponseStarted" && event["verb"] == "watch")
        })
        .map(|event| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let of = &event["objectRef"];
            let subresource = of["subresource"]
                .as_str()
                .map(|name| format!("/{name}"))
                .unwrap_or_default();
            Request {
                verb: text(&event["verb"]),
                group: text(&of["apiGroup"]),
                // What is no resource has a path alone.
                resource: if of.is_null() {
                    text(&event["requestURI"])
                } else {
                    text(&of["resource"]) + &subresource
                },
                namespace: text(&of["namespace"]),
                name: text(&of["name"]),
                code: event["responseStatus"]["code"].as_u64().unwrap_or_default(),
            }
        })
        .collect()
}

/// Writes to anything but the Lease.
pub fn writes(requests: &[Request]) -> Vec<Request> {
    requests
        .iter()
        .filter(|request| request.is_mutating() && request.resource != "leases")
        .cloned()
        .collect()
}

/// What was used: group, resource, verb.
pub fn used(requests: &[Request]) -> BTreeSet<(String, String, String)> {
    requests
        .iter()
        .map(|one| (one.group.clone(), one.resource.clone(), one.verb.clone()))
        .collect()
}
