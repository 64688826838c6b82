//! The object with as much of everything as the schema allows at once, under names of realistic length.

use serde_json::{Map, Value, json};

/// 16 servers of 128 tools of 16 arguments, 64 agents, and every other list that grants filled to its end.
pub fn tenant() -> Value {
    let roles: Vec<String> = (0..16).map(|number| format!("role{number:02}")).collect();
    let people: Vec<Value> = (0..32)
        .map(|number| json!({"kind": "User", "name": format!("person-{number:02}")}))
        .collect();
    json!({
        "apiVersion": "bulkhead.dev/v1alpha1",
        "kind": "McpTenant",
        "metadata": {"name": "greatest"},
        "spec": {
            "identity": {"tenantId": "0b1c7e52-5c3f-4a55-9d1e-6f0f2b9a7c11"},
            "attributes": attributes(),
            "admins": people,
            "developers": people,
            "quota": {"cpu": "64", "memory": "64Gi", "ephemeralStorage": "64Gi", "pods": 1024},
            "issuers": (0..4).map(|number| json!({
                "name": format!("issuer-{number}"),
                "url": format!("https://login.example.com/realms/{number}"),
                "audiences": (0..8).map(|number| format!("api://greatest/{number}")).collect::<Vec<_>>(),
                "roles": (0..if number == 0 { 32 } else { 1 }).map(|number| json!({
                    "claim": "groups", "value": format!("group-{number:02}"), "roles": &roles[..1],
                })).collect::<Vec<_>>(),
            })).collect::<Vec<_>>(),
            "limits": {"requestsPerMinute": 1_000_000, "concurrent": 1024},
            "agents": (0..64).map(|number| json!({
                "name": format!("agent-{number:02}"),
                "roles": roles,
                "attributes": attributes(),
                "limits": {"requestsPerMinute": 1_000_000, "concurrent": 1024},
                "clients": (0..if number == 0 { 8 } else { 1 }).map(|client| json!({
                    "issuer": "issuer-3", "id": format!("client-{number:02}-{client}"),
                })).collect::<Vec<_>>(),
                "egress": egress(),
            })).collect::<Vec<_>>(),
            "servers": (0..16).map(|number| json!({
                "name": format!("server-{number:02}"),
                "image": "registry.example.com/server:1",
                "replicas": 64,
                "instructions": vec![format!("sha256:{}", "0".repeat(64)); if number == 0 { 8 } else { 0 }],
                "hostnames": (0..if number == 0 { 8 } else { 1 }).map(|name| format!("server-{number:02}.zone-{name}.example.com")).collect::<Vec<_>>(),
                "http": {"port": 3000},
                // One server has them all; what they are multiplied by is in the schema.
                "env": (0..if number == 0 { 64 } else { 4 }).map(|number| json!({"name": format!("VARIABLE_{number:02}"), "value": "value"})).collect::<Vec<_>>(),
                "volumes": (0..8).map(|number| json!({
                    "name": format!("volume{number}"), "mountPath": format!("/volumes/{number}"), "sizeLimit": "1Mi",
                })).collect::<Vec<_>>(),
                "egress": egress(),
                "clients": (0..16).map(|number| json!({
                    "namespace": format!("gateway-{number:02}"), "podLabels": {"app": "edge"},
                })).collect::<Vec<_>>(),
                "tools": (0..128).map(|tool| {
                    let mut rule = json!({
                        "name": format!("tool_{tool:03}"),
                        // All roles once: what is granted where is a matter of names, and names are what costs.
                        "roles": if tool == 0 { &roles[..] } else { &roles[..1] },
                        "arguments": {"forced": forced(), "bounds": bounds()},
                    });
                    // All of them would make the object larger than etcd takes; one server has them all.
                    if number == 0 {
                        rule["results"] = results();
                    }
                    if number == 0 && tool == 0 {
                        rule["definitions"] = json!(vec![format!("sha256:{}", "0".repeat(64)); 8]);
                    }
                    rule
                }).collect::<Vec<_>>(),
                "prompts": (0..if number == 0 { 64 } else { 1 }).map(|number| json!({
                    "name": format!("prompt_{number:02}"),
                    "roles": &roles[..1],
                    "arguments": {"forced": forced(), "bounds": text_bounds()},
                })).collect::<Vec<_>>(),
                "mcpResources": (0..if number == 0 { 64 } else { 1 }).map(|number| json!({
                    "uri": format!("notes-{number:02}://{{a}}/{{b}}/{{c}}/{{d}}/{{e}}/{{f}}/{{g}}/{{+h}}"),
                    "roles": &roles[..1],
                    "forced": variables(),
                    "results": results(),
                })).collect::<Vec<_>>(),
                "clientFeatures": {"sampling": true, "elicitation": ["Form", "Url"], "roots": true, "logging": true},
            })).collect::<Vec<_>>(),
        },
    })
}

fn attributes() -> Value {
    (0..16u8)
        .map(|number| (char::from(b'a' + number).to_string(), json!("value")))
        .collect::<Map<_, _>>()
        .into()
}

/// Half of both kinds, so that rules about one meet the other.
fn egress() -> Value {
    (0..16)
        .map(|number| match number % 2 {
            0 => json!({"to": {"cidr": format!("203.0.113.{number}/32")}, "ports": [443]}),
            _ => json!({"to": {"namespace": format!("peer-{number:02}"), "podLabels": {"app": "peer"}}, "ports": [443]}),
        })
        .collect::<Vec<_>>()
        .into()
}

/// Every one of them is looked up in the tenant's attributes.
fn forced() -> Value {
    (0..8)
        .map(|number| (format!("forced_{number:02}"), json!({"attribute": "p"})))
        .collect::<Map<_, _>>()
        .into()
}

fn text_bounds() -> Value {
    (0..8)
        .map(|number| (format!("bound_{number:02}"), json!({"maxLength": 100})))
        .collect::<Map<_, _>>()
        .into()
}

fn variables() -> Value {
    "abcdefgh"
        .chars()
        .map(|name| (name.to_string(), json!({"attribute": "p"})))
        .collect::<Map<_, _>>()
        .into()
}

fn bounds() -> Value {
    (0..8)
        .map(|number| (format!("bound_{number:02}"), json!({"maximum": 100})))
        .collect::<Map<_, _>>()
        .into()
}

fn results() -> Value {
    json!({
        "owned": {"path": "$.rows", "field": "owner", "equals": {"attribute": "p"}},
        "maxRecords": 1000,
        "maxBytes": 1_000_000,
    })
}
