//! Tenants for scenarios: the two samples, and throw-away ones.

use std::{path::Path, sync::Once};

use anyhow::{Result, anyhow};
use serde_json::{Value, json};

use crate::{Kubectl, apply, condition, delete, eventually, object, setting};

/// A tenant that is deleted when the scenario ends.
#[derive(Debug)]
pub struct Tenant {
    /// Its name.
    pub name: String,
}

impl Tenant {
    /// Applies a tenant, gives its ledger the shared database role, and waits until it is ready.
    ///
    /// # Panics
    /// When it doesn't become ready.
    pub fn ready(spec: &Value) -> Self {
        let tenant = Self::applied(spec);
        database(&tenant.name, "ledger_shared");
        wait_ready(&tenant.name);
        tenant
    }

    /// Applies a tenant and waits for nothing.
    ///
    /// # Panics
    /// When the API server refuses it.
    pub fn applied(spec: &Value) -> Self {
        let name = spec["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        eventually(&format!("{name} applied"), || apply(spec));
        Self { name }
    }

    /// The URL of its `ledger`.
    pub fn url(&self) -> String {
        url(&self.name)
    }

    /// The URL of another server of it.
    pub fn url_of(&self, server: &str) -> String {
        format!("https://{server}.{}.svc:8443/mcp", self.name)
    }
}

impl Drop for Tenant {
    fn drop(&mut self) {
        // A scenario that failed leaves its tenant for a look at it.
        if !std::thread::panicking() {
            let _ = delete("mcptenant", "", &self.name);
        }
    }
}

fn url(tenant: &str) -> String {
    format!("https://ledger.{tenant}.svc:8443/mcp")
}

/// The two samples, `acme` and `globex`, ready. Every scenario that uses them leaves them as they are.
///
/// # Panics
/// When they don't become ready.
pub fn samples() -> [Sample; 2] {
    static READY: Once = Once::new();
    READY.call_once(|| {
        for name in ["acme", "globex"] {
            let tenant = sample(name);
            eventually(&format!("{name} applied"), || Kubectl::admin().apply(&tenant));
        }
        for name in ["acme", "globex"] {
            database(name, &format!("{name}_ledger"));
        }
        for name in ["acme", "globex"] {
            wait_ready(name);
        }
    });
    ["acme", "globex"].map(|name| Sample {
        name: name.into(),
        url: url(name),
    })
}

/// A sample tenant: not deleted at the end.
#[derive(Debug)]
pub struct Sample {
    /// Its name.
    pub name: String,
    /// The URL of its `ledger`.
    pub url: String,
}

/// A sample's manifest, with the image that was built.
///
/// # Panics
/// When the manifest can't be read.
#[allow(clippy::expect_used, reason = "the samples are part of the repository")]
fn sample(name: &str) -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../manifests/samples/{name}.yaml"));
    let text = std::fs::read_to_string(&file).expect("the samples must be readable");
    let mut tenant: Value = serde_saphyr::from_str(&text).expect("the samples must be YAML");
    tenant["spec"]["servers"][0]["image"] = json!(setting("BULKHEAD_E2E_IMAGE_LEDGER"));
    tenant
}

/// A small tenant with one `ledger` server and one agent, `billing`, with role `reader`.
pub fn tenant(name: &str) -> Value {
    json!({
        "apiVersion": "bulkhead.dev/v1alpha1",
        "kind": "McpTenant",
        "metadata": {"name": name},
        "spec": {
            "identity": {"tenantId": format!("id-of-{name}")},
            "attributes": {"region": "eu"},
            "admins": [{"kind": "Group", "name": format!("{name}-admins")}],
            "developers": [{"kind": "Group", "name": format!("{name}-developers")}],
            "quota": {"cpu": "2", "memory": "1Gi", "pods": 4},
            "agents": [{"name": "billing", "roles": ["reader"]}],
            "servers": [server()],
        },
    })
}

/// The `ledger` server of [`tenant`].
pub fn server() -> Value {
    let tenant_id = json!({"tenant_id": {"identity": "tenantId"}});
    json!({
        "name": "ledger",
        "image": setting("BULKHEAD_E2E_IMAGE_LEDGER"),
        "http": {"port": 3000},
        "env": [{"name": "DATABASE_URL", "secretKeyRef": {"name": "ledger-db", "key": "url"}}],
        "egress": [{"to": {"namespace": "databases", "podLabels": {"app": "postgres"}}, "ports": [5432]}],
        "tools": [
            {"name": "list_invoices", "roles": ["reader"], "arguments": {"forced": tenant_id, "bounds": {"limit": {"maximum": 100}}}},
            {"name": "search_notes", "roles": ["reader"], "arguments": {"forced": tenant_id}},
            {"name": "delete_invoice", "roles": ["admin"], "arguments": {"forced": tenant_id}},
        ],
    })
}

/// Puts the database URL of a role into the tenant's namespace, as a platform team would.
fn database(tenant: &str, role: &str) {
    let url = format!("postgres://{role}:{role}@postgres.databases.svc:5432/ledger");
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "ledger-db", "namespace": tenant},
        "stringData": {"url": url},
    });
    eventually(&format!("database of {tenant}"), || apply(&secret));
}

fn wait_ready(name: &str) {
    eventually(&format!("{name} Ready"), || -> Result<()> {
        let tenant = object("mcptenant", "", name)?;
        let current = tenant["status"]["observedGeneration"] == tenant["metadata"]["generation"];
        match condition(&tenant, "Ready") {
            Some(ready) if current && ready["status"] == "True" => Ok(()),
            _ => Err(anyhow!("{}", tenant["status"]["conditions"])),
        }
    });
}
