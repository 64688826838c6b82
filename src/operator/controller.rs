//! The reconcile of one tenant: dereference → validate → claim → build → apply → status.

use std::{
    collections::{BTreeSet, HashSet},
    hash::Hash,
    sync::Arc,
    time::Duration,
};

use bulkhead_api::{
    McpTenant, McpTenantStatus,
    conditions::{reasons, types},
    tenant::OfferKind,
};
use bulkhead_core::policy::document::{Callable, Enforcement};
use futures::{Stream, StreamExt, TryFutureExt, stream};
use kube::{
    Resource, ResourceExt,
    api::ObjectMeta,
    runtime::{
        controller::{self, Action, Config},
        reflector::ObjectRef,
    },
};
use tokio::{sync::mpsc::UnboundedReceiver, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{debug, instrument, warn};

use crate::{
    apply::{self, Applied, Owner, Refusal},
    build, claims,
    context::Context,
    control::Offer,
    dereference,
    error::{Error, Retry, back_off},
    names::{self, ClaimKind},
    status::{self, Outcome, ServerView, View},
    teardown::{self, Progress},
    validate::{self, Closed},
    watch::Guarded,
};

/// Requests for one tenant within this time become one.
const GATHER: Duration = Duration::from_millis(200);
/// How soon to try again what was a race or the API server's own trouble.
const QUICKLY: Duration = Duration::from_secs(1);

/// Reconciles until told to stop, then finishes what it has begun.
pub async fn run(
    context: Arc<Context>,
    requests: UnboundedReceiver<ObjectRef<Guarded>>,
    concurrency: u16,
    shutdown: CancellationToken,
) {
    // Everything once: what happened before this replica led was not for it to repair.
    let all: Vec<_> = context
        .tenants
        .state()
        .iter()
        .map(|tenant| ObjectRef::from_obj(&**tenant))
        .collect();
    let queue = stream::iter(all)
        .chain(gathered(requests))
        .take_until(shutdown.cancelled_owned());
    controller::applier(
        |tenant, context| Box::pin(spawn(tenant, context)),
        retry,
        context.clone(),
        context.tenants.clone(),
        queue.map(Ok::<_, std::convert::Infallible>),
        Config::default().concurrency(concurrency),
    )
    .for_each(async |result| {
        // Anything else was told of where it happened. A tenant that is gone needs nothing.
        if let Err(controller::Error::ObjectNotFound(tenant)) = result {
            debug!(%tenant, "gone");
        }
    })
    .await;
}

/// Requests, each tenant's once in a while.
///
/// The time begins with the first request and ends, whatever comes meanwhile. kube-runtime's own debounce begins it anew
/// with each: whoever can make a tenant's objects change often enough would keep that tenant from ever being looked at.
fn gathered<T: Eq + Hash>(requests: UnboundedReceiver<T>) -> impl Stream<Item = T> {
    stream::unfold(requests, async |mut requests| {
        let mut gathered = HashSet::from([requests.recv().await?]);
        tokio::time::sleep(GATHER).await;
        for _ in 0..requests.len() {
            gathered.extend(requests.try_recv());
        }
        Some((stream::iter(gathered), requests))
    })
    .flatten()
}

/// Runs a reconcile as a task of its own: on any thread, and without taking others down should it panic.
async fn spawn(tenant: Arc<Guarded>, context: Arc<Context>) -> Result<Action, Error> {
    tokio::spawn(measured(tenant, context))
        .map_err(Error::Task)
        .await?
}

#[instrument(name = "tenant", skip_all, fields(name = tenant.name_any()))]
async fn measured(tenant: Arc<Guarded>, context: Arc<Context>) -> Result<Action, Error> {
    let started = Instant::now();
    let result = reconcile(&tenant, &context).await;
    let (result_name, reason) = match &result {
        Ok((_, reason)) => ("ok", *reason),
        Err(error) => ("error", error.reason()),
    };
    context.metrics.reconciled(result_name, reason, started.elapsed());
    result.map(|(action, _)| action)
}

/// When to try again after a failure.
#[allow(clippy::needless_pass_by_value)]
fn retry(tenant: Arc<Guarded>, error: &Error, context: Arc<Context>) -> Action {
    let uid = tenant.meta().uid.clone().unwrap_or_default();
    let failures = context.memory.failed(&uid);
    let after = match error.retry() {
        Retry::Quickly if failures < 5 => QUICKLY,
        _ => back_off(failures),
    };
    warn!(
        tenant = tenant.name_any(),
        error = error.chain(),
        failures,
        ?after,
        "the reconcile failed"
    );
    Action::requeue(after)
}

/// One reconcile, with the word for metrics that it ended in.
async fn reconcile(tenant: &Guarded, context: &Context) -> Result<(Action, &'static str), Error> {
    let metadata = tenant.meta();
    let uid = metadata.uid.clone().unwrap_or_default();
    let before = match &tenant.0 {
        Ok(tenant) => status::current(context, tenant),
        // Its status can't be read either. Whatever is written now is news.
        Err(_) => McpTenantStatus::default(),
    };
    if metadata.deletion_timestamp.is_some() {
        return tear_down(context, metadata, &before).await;
    }
    let result = match &tenant.0 {
        Ok(tenant) => pursue(context, tenant, &uid, &before).await,
        Err(invalid) => Ok(Outcome::Refused {
            reason: reasons::UNREADABLE.to_owned(),
            message: format!("The object does not fit the current schema: {}.", invalid.error),
        }),
    };
    // Also after a failure: the status never says what isn't so any more.
    let outcome = match result {
        Ok(outcome) => outcome,
        Err(error) => {
            if let Err(error) = status::report(context, metadata, &before, &Outcome::from(&error)).await {
                warn!(error = error.chain(), "cannot write the status of a failure");
            }
            return Err(error);
        }
    };
    status::report(context, metadata, &before, &outcome).await?;
    context.memory.succeeded(&uid);
    Ok(match outcome {
        Outcome::Refused { .. } => (Action::requeue(context.resync), "Refused"),
        Outcome::Failed { reason, .. } => (Action::requeue(teardown::LOOK_AGAIN), reason),
        _ => (Action::requeue(context.resync), "Applied"),
    })
}

/// Builds a tenant as far as it may be built.
async fn pursue(
    context: &Context,
    tenant: &McpTenant,
    uid: &str,
    before: &McpTenantStatus,
) -> Result<Outcome, Error> {
    let observed = dereference::dereference(context, tenant);
    let valid = match validate::validate(tenant, &context.settings, &observed) {
        Ok(valid) => valid,
        Err(invalid) => {
            // What was built before it was refused must not end without its teardown either.
            if !before.namespaces.is_empty() && !teardown::is_held(&tenant.metadata) {
                teardown::hold(context, &tenant.metadata).await?;
            }
            // And it must not stay open to what came to be forbidden since, a new node or tenant.
            let owner = Owner {
                name: &tenant.name_any(),
                uid,
                namespaces: &before.namespaces,
            };
            apply::narrow(context, owner, &Closed::new(&context.settings, &observed)).await?;
            return Ok(refused(&invalid));
        }
    };
    if !teardown::is_held(&tenant.metadata) {
        teardown::hold(context, &tenant.metadata).await?;
    }
    let name = valid.name.as_str().to_owned();
    if let Some(taken) = claims::take(context, &name, uid, &valid.claims()).await? {
        return Ok(taken_by_another(taken));
    }
    if is_new(tenant, before) {
        claims::release_others(context, &name, uid, &valid.claims()).await?;
    }
    let children = build::build(&valid, &observed, &context.settings);
    let trust_known = observed.trust_is_known();
    let certificates: Vec<_> = children
        .certificates
        .iter()
        .map(|certificate| {
            (
                certificate.namespace().unwrap_or_default(),
                certificate.name_any(),
            )
        })
        .collect();
    let settling = context.sidecars.is_settling() && was_enforced(before);
    let servers = valid.servers.iter().map(|server| {
        let host = &server
            .name
            .hostnames(&valid.name, &context.settings.cluster_domain)[0];
        let url = format!(
            "https://{host}:{}{}",
            bulkhead_core::pod::MTLS_PORT,
            server.http.path
        );
        let revision = revision(&children, server.name.as_str());
        let before = before.servers.iter().find(|before| {
            settling && before.name == server.name.as_str() && before.policy_revision == revision
        });
        let mut view = ServerView::new(server.name.as_str(), url, revision, server.replicas);
        view.offers = offers(server);
        view.reporting = reporting(server);
        view.before = before.cloned();
        let pins = build::pins(server, &observed);
        context
            .memory
            .applies_pins(uid, server.name.as_str(), pins.clone());
        view.definitions = (!pins.is_empty()).then(|| pins.fingerprint());
        view
    });
    let servers = servers.collect();
    let owner = Owner {
        name: &name,
        uid,
        namespaces: &before.namespaces,
    };
    let applied = apply::apply(context, owner, children, trust_known).await?;
    if let Some(refusal) = &applied.refused {
        return Ok(unusable(refusal));
    }
    let mut view = View::gather(
        (&context.cache, &context.sidecars),
        &applied,
        &certificates,
        servers,
        trust_known,
    );
    view.issuers = valid
        .issuers
        .iter()
        .map(|issuer| issuer.rules.name.clone())
        .collect();
    view.issuers_unknown = valid
        .issuers
        .iter()
        .filter_map(|issuer| {
            let state = observed.issuers.get(&issuer.rules.url);
            let known = state.is_some_and(|state| state.keys.is_some());
            let problem = state.and_then(|state| state.problem.clone());
            (!known).then(|| (issuer.rules.name.clone(), problem))
        })
        .collect();
    let Applied { namespaces, .. } = applied;
    Ok(Outcome::Applied { namespaces, view })
}

/// Whether this specification has not been built yet.
fn is_new(tenant: &McpTenant, before: &McpTenantStatus) -> bool {
    let accepted = before
        .conditions
        .iter()
        .find(|condition| condition.type_ == types::ACCEPTED && condition.status == "True");
    accepted.and_then(|condition| condition.observed_generation) != tenant.metadata.generation
}

/// The tools and prompts of a server.
fn offers(server: &validate::Server) -> BTreeSet<Offer> {
    let named = |kind, names: &[Callable]| {
        let offer = |name: &Callable| Offer {
            kind,
            name: name.name.clone(),
        };
        names.iter().map(offer).collect::<Vec<_>>()
    };
    let tools = named(OfferKind::Tool, &server.offers.tools);
    tools
        .into_iter()
        .chain(named(OfferKind::Prompt, &server.offers.prompts))
        .collect()
}

/// Paths of the rules of a server that only report, as sidecars name them.
fn reporting(server: &validate::Server) -> BTreeSet<String> {
    let of = |part: &str, callables: &[Callable]| {
        let rules = callables.iter().flat_map(|callable| {
            let place = format!("{part}[{}]", callable.name);
            let bounds = callable
                .bounds
                .iter()
                .filter(|(_, bounds)| bounds.enforcement == Enforcement::Report)
                .map(|(argument, _)| format!("{place}.bounds[{argument}]"));
            let results = callable
                .results
                .iter()
                .filter(|results| results.enforcement == Enforcement::Report)
                .map(|_| format!("{place}.results"));
            bounds.chain(results).collect::<Vec<_>>()
        });
        rules.collect::<Vec<_>>()
    };
    let tools = of("tools", &server.offers.tools);
    tools
        .into_iter()
        .chain(of("prompts", &server.offers.prompts))
        .collect()
}

/// Whether every sidecar had confirmed its policy.
fn was_enforced(before: &McpTenantStatus) -> bool {
    before
        .conditions
        .iter()
        .any(|condition| condition.type_ == types::POLICY_ENFORCED && condition.status == "True")
}

/// The revision of the policy that a server's pods are told to enforce.
fn revision(children: &build::Children, server: &str) -> String {
    children
        .deployments
        .iter()
        .find(|deployment| deployment.metadata.name.as_deref() == Some(server))
        .and_then(|deployment| deployment.spec.template.metadata.as_ref()?.annotations.as_ref())
        .and_then(|annotations| annotations.get(names::ANNOTATION_POLICY_REVISION).cloned())
        .unwrap_or_default()
}

fn refused(invalid: &[validate::Invalid]) -> Outcome {
    let reason = invalid
        .first()
        .map_or(reasons::NOT_ACCEPTED, |first| first.reason.as_str())
        .to_owned();
    let message = invalid
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ");
    Outcome::Refused { reason, message }
}

/// The holder is never named: a tenant must not learn of another.
fn taken_by_another(claim: ClaimKind) -> Outcome {
    let (reason, message) = match claim {
        ClaimKind::TenantId => (
            reasons::IDENTITY_TAKEN,
            "spec.identity.tenantId is held by another tenant of this cluster. Nothing was built. Give this tenant a \
             value of its own; the field can't be changed, so delete this object and make it anew.",
        ),
        ClaimKind::Audience => (
            reasons::AUDIENCE_TAKEN,
            "An audience of spec.issuers, of its issuer, is held by another tenant of this cluster: a token that both would \
             take could be used on either. Nothing was built. Have tokens issued for an audience of this tenant's own.",
        ),
        ClaimKind::Namespace => (
            reasons::NAMESPACE_TAKEN,
            "A namespace that this tenant's name stands for is held by another tenant of this cluster. Nothing was \
             built. Choose another name.",
        ),
    };
    Outcome::Refused {
        reason: reason.to_owned(),
        message: message.to_owned(),
    }
}

fn unusable(refusal: &Refusal) -> Outcome {
    match refusal {
        Refusal::Taken(namespace) => Outcome::Refused {
            reason: reasons::NAMESPACE_TAKEN.to_owned(),
            message: format!(
                "The namespace {namespace} exists and is not this tenant's. Nothing was built. Choose another name \
                 for the tenant, or remove the namespace."
            ),
        },
        Refusal::Terminating(namespace) => Outcome::Failed {
            reason: reasons::NAMESPACE_TERMINATING,
            message: format!("Somebody deletes the namespace {namespace}. It is made anew when it is gone."),
        },
    }
}

/// One step of the end of a tenant.
async fn tear_down(
    context: &Context,
    metadata: &ObjectMeta,
    before: &McpTenantStatus,
) -> Result<(Action, &'static str), Error> {
    let (name, uid) = (
        metadata.name.as_deref().unwrap_or_default(),
        metadata.uid.as_deref().unwrap_or_default(),
    );
    let forget = || {
        context.memory.forget(uid);
        context.metrics.forget_tenant(uid);
    };
    if !teardown::is_held(metadata) {
        // Somebody else's finalizer holds it; ours is done.
        forget();
        return Ok((Action::await_change(), reasons::TERMINATING));
    }
    let owner = Owner {
        name,
        uid,
        namespaces: &before.namespaces,
    };
    match teardown::tear_down(context, owner).await {
        Ok(Progress::Done) => {
            teardown::let_go(context, metadata).await?;
            forget();
            Ok((Action::await_change(), "TornDown"))
        }
        Ok(Progress::Waiting(message)) => {
            status::report(context, metadata, before, &Outcome::Terminating { message }).await?;
            context.memory.succeeded(uid);
            Ok((Action::requeue(teardown::LOOK_AGAIN), reasons::TERMINATING))
        }
        Err(error) => {
            let message = format!("The teardown is tried again: {}", error.chain());
            status::report(context, metadata, before, &Outcome::Terminating { message }).await?;
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn whoever_asks_without_end_delays_nobody() {
        let (sender, requests) = mpsc::unbounded_channel();
        let busy = tokio::spawn(async move {
            while sender.send("umbra").is_ok() {
                tokio::time::sleep(GATHER / 10).await;
            }
        });
        let mut tenants = std::pin::pin!(gathered(requests));
        let begun = Instant::now();
        for _ in 0..3 {
            assert_eq!(tenants.next().await, Some("umbra"));
        }
        assert!(begun.elapsed() < GATHER * 4, "on the paused clock");
        busy.abort();
    }
}
