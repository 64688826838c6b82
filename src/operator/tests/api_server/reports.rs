//! Who may say what is in force, and what becomes of what is said.

use bulkhead_control::{Definition, Kind, Reported, SidecarReport, Withheld, client::ClientError};
use bulkhead_core::control::AUDIENCE;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::{
    audit,
    building::{deployments, metrics, report, run_pod},
    fixture::{Fixture, tenant, until},
    rights,
    sidecar::{Papers, Sidecar, token},
};

async fn status(fixture: &Fixture) -> Value {
    serde_json::to_value(fixture.tenant("umbra").await.unwrap().status).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_sidecar_of_a_tenants_own_pod_is_heard() {
    let fixture = Fixture::start().await;
    let operator = fixture.operator(&[]).await;
    let mut umbra = tenant("umbra", "u-1");
    umbra["spec"]["servers"][0]["tools"][0]["arguments"]["bounds"] =
        json!({"limit": {"maximum": 100, "enforcement": "Report"}});
    fixture.apply(&umbra).await;
    fixture.apply(&tenant("penumbra", "p-1")).await;
    until("both Deployments are there", async || deployments(&fixture).await).await;
    fixture
        .until_condition("penumbra", "CertificatesReady", "True", "AsSpecified")
        .await;
    for server in ["notes", "files"] {
        run_pod(&fixture, server, None, true).await;
    }
    fixture
        .until_condition("umbra", "PolicyEnforced", "Unknown", "WaitingForSidecars")
        .await;
    fixture.until_quiet().await;
    let before = status(&fixture).await;

    let good = Papers::of(&fixture, "umbra", "notes", "notes-0").await;
    let with_token = |token: String| Papers {
        token,
        ..good.clone()
    };
    let of = |id: &str| Papers {
        spiffe_id: id.to_owned(),
        ..good.clone()
    };
    let by = |namespace: &str, name: &str| Papers {
        authority: (namespace.to_owned(), name.to_owned()),
        ..good.clone()
    };
    let bound = |account: &'static str, pod: Option<&'static str>, audience: &'static str| {
        token(&fixture, "umbra", account, pod, audience)
    };
    for (what, papers) in [
        ("no token", with_token("none".to_owned())),
        (
            "a token for another audience",
            with_token(bound("notes", Some("notes-0"), "bulkhead:umbra").await),
        ),
        (
            "a token of no pod",
            with_token(bound("notes", None, AUDIENCE).await),
        ),
        (
            "a token of another server",
            with_token(bound("files", Some("files-0"), AUDIENCE).await),
        ),
        (
            "a certificate of another server",
            of("spiffe://umbra.cluster.local/ns/umbra/sa/files"),
        ),
        ("a certificate of another tenant", by("penumbra", "servers-ca")),
        (
            "a certificate of the tenant's agents",
            by("umbra-agents", "agents-ca"),
        ),
    ] {
        let sidecar = Sidecar::call(&fixture, &operator, &papers).await;
        sidecar.says(SidecarReport {
            network_closed: true,
            ..SidecarReport::default()
        });
        match sidecar.ended().await {
            Err(ClientError::Status(status)) => {
                assert_eq!(status.code() as i32, UNAUTHENTICATED, "{what}: {status}");
                assert!(!status.message().contains("umbra"), "{what}: {status}");
            }
            other => panic!("{what}: {other:?}"),
        }
    }
    fixture.until_quiet().await;
    assert_eq!(status(&fixture).await, before, "what they said came to nothing");

    let sidecar = Sidecar::call(&fixture, &operator, &good).await;
    sidecar.says(SidecarReport {
        policy_revision: "not one".to_owned(),
        ..SidecarReport::default()
    });
    match sidecar.ended().await {
        Err(ClientError::Status(status)) => assert_eq!(status.code() as i32, INVALID, "{status}"),
        other => panic!("nonsense: {other:?}"),
    }
    what_is_said_is_shown(&fixture, &operator).await;
    operator.stop().await;
}

const UNAUTHENTICATED: i32 = 16;
const INVALID: i32 = 3;

async fn what_is_said_is_shown(fixture: &Fixture, operator: &crate::fixture::Operator) {
    let (notes, _files) = (
        report(fixture, operator, "notes").await,
        report(fixture, operator, "files").await,
    );
    fixture
        .until_condition("umbra", "PolicyEnforced", "True", "AsSpecified")
        .await;
    let counted = metrics(operator);
    // Two calls that are under way, and what those before came to.
    for line in [
        "bulkhead_operator_sidecars 2",
        r#"bulkhead_operator_sidecar_calls_total{result="refused"} 7"#,
        r#"bulkhead_operator_sidecar_calls_total{result="admitted"} 3"#,
    ] {
        assert!(counted.contains(line), "{line}: {counted}");
    }
    rights::is_used(fixture, ("authentication.k8s.io", "tokenreviews", "create"));
    let revision = status(fixture).await["servers"][0]["policyRevision"]
        .as_str()
        .unwrap()
        .to_owned();
    let withheld = |name: &str| Withheld {
        kind: Kind::Tool.into(),
        name: name.to_owned(),
        reason: "definition_changed".to_owned(),
        protocol_version: "2025-11-25".to_owned(),
        definition: format!("sha256:{}", "a".repeat(64)),
    };
    let said = SidecarReport {
        policy_revision: revision,
        network_closed: true,
        inventory_taken: true,
        withheld: vec![withheld("search"), withheld("no such tool")],
        reported: vec![Reported {
            rule: "tools[search].bounds[limit]".to_owned(),
            reason: "argument_out_of_bounds".to_owned(),
        }],
        ..SidecarReport::default()
    };
    notes.says(said.clone());
    fixture
        .until_condition("umbra", "ToolsOffered", "False", "DefinitionNotAccepted")
        .await;
    let shown = &status(fixture).await["servers"][0];
    assert_eq!(shown["name"], "notes");
    assert_eq!(shown["withheld"].as_array().unwrap().len(), 1, "{shown}");
    assert_eq!(shown["withheld"][0]["name"], "search");
    assert_eq!(
        shown["withheld"][0]["definition"],
        format!("sha256:{}", "a".repeat(64))
    );
    assert_eq!(shown["reported"][0]["rule"], "tools[search].bounds[limit]");
    // Ready doesn't wait for it, and it is told once.
    fixture
        .until_condition("umbra", "PolicyEnforced", "True", "AsSpecified")
        .await;
    notes.says(SidecarReport {
        withheld: Vec::new(),
        network_closed: false,
        ..said
    });
    fixture
        .until_condition("umbra", "NetworkIsolated", "False", "NetworkPolicyNotEnforced")
        .await;
    fixture
        .until_condition("umbra", "ToolsOffered", "True", "AsSpecified")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::too_many_lines)] // One story.
async fn what_a_server_showed_first_is_pinned_for_all_its_pods_and_outlives_restarts_and_images() {
    let fixture = Fixture::start().await;
    let operator = fixture.operator(&[]).await;
    let mut spec = tenant("umbra", "u-1");
    fixture.apply(&spec).await;
    until("both Deployments are there", async || deployments(&fixture).await).await;
    run_pod(&fixture, "notes", None, true).await;
    let image = |spec: &Value| spec["spec"]["servers"][0]["image"].as_str().unwrap().to_owned();
    assert_eq!(pins(&fixture).await, json!({"format": 1, "image": image(&spec)}));

    let shown = |name: &str, letter: &str| Definition {
        kind: Kind::Tool.into(),
        name: name.to_owned(),
        protocol_version: "2025-11-25".to_owned(),
        definition: format!("sha256:{}", letter.repeat(64)),
    };
    let first = |letter: &str| SidecarReport {
        first: vec![shown("search", letter), shown("no such tool", letter)],
        ..SidecarReport::default()
    };
    let pinned = |letter: &str| json!({"search": {"2025-11-25": format!("sha256:{}", letter.repeat(64))}});
    let papers = Papers::of(&fixture, "umbra", "notes", "notes-0").await;
    let sidecar = Sidecar::call(&fixture, &operator, &papers).await;
    sidecar.says(first("a"));
    until_pins(&fixture, "the first definition", |pins| {
        pins["tools"] == pinned("a")
    })
    .await;
    until("the status vouches for it", async || {
        let status = status(&fixture).await;
        status["servers"][0]["definitions"]
            .is_string()
            .then_some(())
            .ok_or_else(|| status.to_string())
    })
    .await;
    sidecar.says(first("b"));
    // Another field of the same object is repaired, and the pins stay; so over a restart.
    let config_maps = fixture.api("", "ConfigMap", Some("umbra"));
    let forged = json!({"data": {"more": "x"}});
    let stranger = PatchParams::apply("stranger").force();
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": forged["data"]});
    config_maps
        .patch("notes-policy", &stranger, &Patch::Apply(&object))
        .await
        .unwrap();
    until("it is repaired", async || {
        let data = config_maps.get("notes-policy").await.unwrap().data;
        data["data"]["more"]
            .is_null()
            .then_some(())
            .ok_or_else(|| data.to_string())
    })
    .await;
    assert_eq!(pins(&fixture).await["tools"], pinned("a"));
    fixture.until_quiet().await;
    let writes = audit::writes(&fixture.requests()).len();
    operator.stop().await;
    drop(sidecar);
    let operator = fixture.operator(&[]).await;
    fixture.until_quiet().await;
    let sidecar = Sidecar::call(&fixture, &operator, &papers).await;
    sidecar.says(first("c"));
    fixture.until_quiet().await;
    assert_eq!(audit::writes(&fixture.requests())[writes..], []);

    // Nobody else's pins count, nor does the loss of them: neither to this leader, nor to the next, which knows the status.
    let mut forged: Value = pins(&fixture).await;
    forged["tools"] = pinned("f");
    let object = json!({"data": {"pins.json": forged.to_string()}});
    let forge = async || {
        config_maps
            .patch("notes-policy", &PatchParams::default(), &Patch::Merge(&object))
            .await
            .unwrap();
    };
    forge().await;
    until_pins(&fixture, "another's pins are replaced", |pins| {
        pins["tools"] == pinned("a")
    })
    .await;
    config_maps
        .delete("notes-policy", &DeleteParams::default())
        .await
        .unwrap();
    until("it is made anew", async || {
        config_maps
            .get_opt("notes-policy")
            .await
            .unwrap()
            .map(|_| ())
            .ok_or_else(String::new)
    })
    .await;
    assert_eq!(pins(&fixture).await["tools"], pinned("a"));
    fixture.until_quiet().await;
    operator.stop().await;
    forge().await;
    let operator = fixture.operator(&[]).await;
    let sidecar = {
        drop(sidecar);
        until_pins(&fixture, "another's pins are dropped", |pins| {
            pins["tools"] != pinned("f")
        })
        .await;
        Sidecar::call(&fixture, &operator, &papers).await
    };
    sidecar.says(first("c"));
    until_pins(&fixture, "told anew", |pins| pins["tools"] == pinned("c")).await;

    // Another image: held, and told anew where the tenant accepts that.
    let change = |spec: &mut Value, tag: &str| {
        spec["spec"]["servers"][0]["image"] = format!("registry.example.com/notes:{tag}").into();
    };
    change(&mut spec, "2");
    fixture.apply(&spec).await;
    let two = image(&spec);
    until_pins(&fixture, "held over the image", |pins| pins["image"] == *two).await;
    assert_eq!(pins(&fixture).await["tools"], pinned("c"));
    change(&mut spec, "3");
    spec["spec"]["servers"][0]["pinning"] = json!({"onImageChange": "Accept"});
    fixture.apply(&spec).await;
    // The pod is still of the first image, and its sidecar has no say.
    until_pins(&fixture, "begun anew", |pins| {
        pins["image"].as_str().unwrap().ends_with(":3")
    })
    .await;
    assert_eq!(pins(&fixture).await["tools"], Value::Null);
    sidecar.says(first("d"));
    fixture.until_quiet().await;
    assert_eq!(pins(&fixture).await["tools"], Value::Null);
    run_pod(&fixture, "notes", None, true).await;
    until_pins(&fixture, "the new image's own", |pins| {
        pins["tools"] == pinned("d")
    })
    .await;
    operator.stop().await;
}

/// What the server `notes` is held to, as its sidecars mount it.
async fn pins(fixture: &Fixture) -> Value {
    let config_maps = fixture.api("", "ConfigMap", Some("umbra"));
    let object = config_maps.get("notes-policy").await.unwrap();
    serde_json::from_str(object.data["data"]["pins.json"].as_str().unwrap()).unwrap()
}

async fn until_pins(fixture: &Fixture, what: &str, holds: impl Fn(&Value) -> bool) {
    until(what, async || {
        let pins = pins(fixture).await;
        if holds(&pins) {
            Ok(())
        } else {
            Err(pins.to_string())
        }
    })
    .await;
}
