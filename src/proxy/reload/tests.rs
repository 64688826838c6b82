use std::path::PathBuf;

use super::*;
use crate::audit::AuditLog;

const DOCUMENT: &str = r#"{"format":1,"tenant":{"name":"acme","uid":"u"},"server":"crm","hostnames":["crm.acme.svc"],"upstream":{"port":3000,"path":"/mcp"},"agents":[],"tools":[]}"#;

fn config(folder: &Path) -> Config {
    Config {
        pod_ip: "127.0.0.1".parse().unwrap(),
        pod_name: "crm-0".into(),
        pod_uid: "u".into(),
        policy_revision: PolicyDocument::revision_of(DOCUMENT.as_bytes()),
        canary: None,
        kubernetes_service_host: None,
        kubernetes_service_port: 443,
        mtls_port: 0,
        kubelet_port: 0,
        keys_port: 0,
        peers_port: 0,
        metrics_port: None,
        handles_dir: folder.to_owned(),
        policy_dir: folder.to_owned(),
        tls_dir: folder.to_owned(),
        trust_dir: folder.to_owned(),
        control_token: PathBuf::new(),
        admin_socket: PathBuf::new(),
        termination_log: PathBuf::new(),
        workers: None,
    }
}

#[test]
fn the_pod_s_own_revision_comes_first_and_newer_ones_follow() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().to_owned();
    let config = config(&folder);
    let here = "127.0.0.1:8446".parse().unwrap();
    let shared = Shared::new(8443, here, Limits::default(), AuditLog::to(io::sink())).unwrap();
    let live = Arc::clone(&shared.live);
    let mut reloader = Reloader::new(&config, &shared);
    let mut mounted = |document: &str| {
        fs::write(folder.join(pod::POLICY_FILE), document).unwrap();
        reloader.look();
        live.policy().map(|policy| policy.compiled().server().to_owned())
    };
    let renamed = |name| DOCUMENT.replace("crm\",\"host", &format!("{name}\",\"host"));
    assert_eq!(mounted(&renamed("old")), None);
    assert_eq!(mounted(DOCUMENT).as_deref(), Some("crm"));
    assert_eq!(mounted(&renamed("new")).as_deref(), Some("new"));
    assert_eq!(
        mounted("{").as_deref(),
        Some("new"),
        "a broken one changes nothing"
    );
}

#[test]
fn a_pod_whose_pins_are_broken_has_no_policy_and_one_that_has_a_policy_keeps_its_pins() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let here = "127.0.0.1:8446".parse().unwrap();
    let shared = Shared::new(8443, here, Limits::default(), AuditLog::to(io::sink())).unwrap();
    let mut reloader = Reloader::new(&config, &shared);
    let mut with_pins = |pins: &str| {
        fs::write(dir.path().join(pod::PINS_FILE), pins).unwrap();
        reloader.look();
        shared.live.policy().is_some()
    };
    fs::write(dir.path().join(pod::POLICY_FILE), DOCUMENT).unwrap();
    assert!(!with_pins("{"));
    assert!(!with_pins("[]"));
    assert!(with_pins(&Pins::of_image("crm:1").to_json()));
    assert!(with_pins("{"), "what was in force stays");
}
