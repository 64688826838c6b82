//! What a tenant's people may do: developers run agents, admins look.

use bulkhead_e2e::{Agent, Kubectl, samples};

#[test]
fn a_developer_runs_agents_in_the_agents_namespace_and_nothing_in_the_servers() {
    samples();
    let developer = Kubectl::person("dev", &["acme-developers", "system:authenticated"]);
    for resource in ["pods", "jobs.batch", "deployments.apps"] {
        assert!(
            developer.can("create", resource, "acme-agents").unwrap(),
            "{resource} in acme-agents"
        );
        assert!(
            !developer.can("create", resource, "acme").unwrap(),
            "{resource} in acme"
        );
        assert!(
            !developer.can("create", resource, "globex-agents").unwrap(),
            "{resource} in globex-agents"
        );
    }
    for (verb, resource) in [
        ("get", "secrets"),
        ("create", "networkpolicies.networking.k8s.io"),
        ("create", "rolebindings.rbac.authorization.k8s.io"),
        ("create", "certificaterequests.cert-manager.io"),
        ("create", "serviceaccounts/token"),
    ] {
        assert!(
            !developer.can(verb, resource, "acme-agents").unwrap(),
            "{verb} {resource}"
        );
    }
    for (verb, resource) in [
        ("get", "pods"),
        ("get", "pods/log"),
        ("get", "configmaps"),
        ("create", "pods/exec"),
    ] {
        assert!(
            !developer.can(verb, resource, "acme").unwrap(),
            "{verb} {resource} in acme"
        );
    }
}

#[test]
fn a_developers_pod_really_runs_and_really_calls() {
    let [acme, _] = samples();
    let developer = Kubectl::person("dev", &["acme-developers", "system:authenticated"]);
    let agent = Agent::start_by(&developer, "acme", "ops", "developers-own");
    agent.tools(&acme.url).expect("the developer's agent calls");
}

#[test]
fn an_admin_sees_the_servers_and_runs_nothing() {
    samples();
    let admin = Kubectl::person("boss", &["acme-admins", "system:authenticated"]);
    for (verb, resource) in [
        ("get", "pods"),
        ("get", "pods/log"),
        ("list", "events"),
        ("get", "deployments.apps"),
    ] {
        assert!(admin.can(verb, resource, "acme").unwrap(), "{verb} {resource}");
        assert!(
            !admin.can(verb, resource, "globex").unwrap(),
            "{verb} {resource} in globex"
        );
    }
    for namespace in ["acme", "acme-agents"] {
        for (verb, resource) in [
            ("create", "pods"),
            ("create", "jobs.batch"),
            ("create", "pods/exec"),
            ("create", "pods/portforward"),
            ("update", "pods/ephemeralcontainers"),
            ("get", "secrets"),
            ("patch", "deployments.apps"),
            ("delete", "networkpolicies.networking.k8s.io"),
        ] {
            assert!(
                !admin.can(verb, resource, namespace).unwrap(),
                "{verb} {resource} in {namespace}"
            );
        }
    }
}

#[test]
fn a_tenants_people_read_their_own_tenant_and_no_other() {
    samples();
    for group in ["acme-admins", "acme-developers"] {
        let person = Kubectl::person("somebody", &[group, "system:authenticated"]);
        let own = person.run(&["get", "mcptenant", "acme", "-o", "name"]);
        assert_eq!(
            own.expect("their own, by name").trim(),
            "mcptenant.bulkhead.dev/acme"
        );
        for args in [&["get", "mcptenant", "globex"][..], &["get", "mcptenants"]] {
            let refused = person.outcome(args, None).unwrap();
            assert!(!refused.ok && refused.stderr.contains("Forbidden"), "{refused:?}");
            let asked = args.contains(&"globex");
            assert!(asked || !refused.stderr.contains("globex"), "{refused:?}");
        }
    }
}
