//! From a Job to its report: created, watched, read, deleted.

use std::{pin::pin, time::Duration};

use anyhow::{Context as _, Result, anyhow, bail};
use futures::{StreamExt as _, future::BoxFuture};
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{Event, Pod},
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ListParams, LogParams, PostParams},
    runtime::{WatchStreamExt as _, watcher},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, interval, sleep_until},
};

use super::job::CALL;
use crate::{
    agent_call::report::Report,
    exit::{Exit, ExitError},
    output,
    progress::Progress,
};

/// How long a pod may take to run.
pub const START: Duration = Duration::from_mins(2);

/// Runs a Job to its end and reads its report.
pub async fn run(client: &Client, job: &Job, timeout: Duration, progress: &mut Progress) -> Result<Report> {
    with_job(client, job, progress, async |progress| {
        let pod = follow(client, job, timeout, progress, &State::Finished).await?;
        let namespace = job.namespace().unwrap_or_default();
        read(&Api::namespaced(client.clone(), &namespace), &pod).await
    })
    .await
}

/// Waits until a Job's pod runs; its name.
pub async fn until_running(
    client: &Client,
    job: &Job,
    timeout: Duration,
    progress: &mut Progress,
) -> Result<String> {
    let pod = follow(client, job, timeout, progress, &State::Running).await?;
    Ok(pod.name_any())
}

/// Creates a Job and does something with it. It is deleted however that ends, also by Ctrl-C.
pub async fn with_job<T>(
    client: &Client,
    job: &Job,
    progress: &mut Progress,
    work: impl AsyncFnOnce(&mut Progress) -> Result<T>,
) -> Result<T> {
    let namespace = job.namespace().context("the Job has a namespace")?;
    let name = job.name_any();
    // Listened to before there is anything to clean up.
    let interrupted = interrupted()?;
    let jobs: Api<Job> = Api::namespaced(client.clone(), &namespace);
    progress.set(format!("starting Job {namespace}/{name}"));
    jobs.create(&PostParams::default(), job)
        .await
        .with_context(|| format!("creating Job {namespace}/{name}"))?;
    let outcome = tokio::select! {
        outcome = work(progress) => outcome,
        () = interrupted => Err(ExitError { exit: Exit::Interrupted, message: "interrupted".into() }.into()),
    };
    if let Err(error) = jobs.delete(&name, &DeleteParams::background()).await {
        output::note(&format!(
            "warning: Job {namespace}/{name} stays until it expires: {}",
            message(&error)
        ));
    }
    outcome
}

fn interrupted() -> Result<BoxFuture<'static, ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(Box::pin(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }))
}

/// Waits until the Job's pod is so far, or has ended.
async fn follow(
    client: &Client,
    job: &Job,
    timeout: Duration,
    progress: &mut Progress,
    so_far: &State,
) -> Result<Pod> {
    let (namespace, job) = (job.namespace().unwrap_or_default(), job.name_any());
    let (namespace, job) = (namespace.as_str(), job.as_str());
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let config = watcher::Config::default().labels(&format!("batch.kubernetes.io/job-name={job}"));
    let mut changes = pin!(watcher(pods.clone(), config).default_backoff().applied_objects());
    let deadline = Instant::now() + timeout;
    let mut tick = interval(Duration::from_secs(2));
    let mut at = "its pod isn't created yet".to_owned();
    let mut pod_name = None;
    loop {
        tokio::select! {
            () = sleep_until(deadline) => {
                let hint = last_warning(client, namespace, job, pod_name.as_deref()).await;
                let hint = hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
                bail!("no answer within {} s: {at}{hint}", timeout.as_secs());
            }
            _ = tick.tick() => {
                if let (None, Some(hint)) = (&pod_name, last_warning(client, namespace, job, None).await) {
                    progress.set(hint);
                }
                progress.refresh();
            }
            change = changes.next() => {
                let Some(change) = change else { bail!("the watch for the Job's pod ended") };
                let pod = match change {
                    Ok(pod) => pod,
                    // What isn't permitted now won't be later; other failures are tried again by the watch itself.
                    Err(error) if forbidden(&error) => return Err(anyhow!(error).context("watching the Job's pod")),
                    Err(_) => continue,
                };
                pod_name = Some(pod.name_any());
                match state(&pod) {
                    state if state == *so_far => return Ok(pod),
                    State::Waiting(text) => {
                        progress.set(text.clone());
                        at = text;
                    }
                    State::Stuck(text) => bail!("{text}"),
                    State::Running => {
                        "waiting for the server's answer".clone_into(&mut at);
                        progress.set(at.clone());
                    }
                    State::Finished => bail!("pod {} has ended", pod.name_any()),
                }
            }
        }
    }
}

async fn read(pods: &Api<Pod>, pod: &Pod) -> Result<Report> {
    let name = pod.name_any();
    let params = LogParams {
        container: Some(CALL.into()),
        ..LogParams::default()
    };
    let log = pods
        .logs(&name, &params)
        .await
        .with_context(|| format!("reading the log of pod {name}"))?;
    Report::from_log(&log).with_context(|| {
        let status = pod.status.clone().unwrap_or_default();
        let why = [status.reason, status.message]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(": ");
        let last = log.lines().last().unwrap_or("its log is empty");
        format!(
            "pod {name} ended without a report {why} ({last}); is its image that of this kubectl-bulkhead?"
        )
    })
}

/// How far a pod is.
#[derive(Debug, PartialEq, Eq)]
enum State {
    Waiting(String),
    Stuck(String),
    Running,
    Finished,
}

fn state(pod: &Pod) -> State {
    let status = pod.status.clone().unwrap_or_default();
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return State::Finished;
    }
    let container = status
        .container_statuses
        .unwrap_or_default()
        .into_iter()
        .next()
        .and_then(|status| status.state);
    if container.as_ref().is_some_and(|state| state.running.is_some()) {
        return State::Running;
    }
    if let Some(waiting) = container.and_then(|state| state.waiting) {
        let reason = waiting.reason.unwrap_or_default();
        let text = [reason.clone(), waiting.message.unwrap_or_default()].join(" ");
        return match reason.as_str() {
            "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" => State::Stuck(format!(
                "the pod's image can't be had (see --image): {}",
                text.trim()
            )),
            "CreateContainerConfigError" | "CreateContainerError" => {
                State::Stuck(format!("the pod's container can't be created: {}", text.trim()))
            }
            _ => State::Waiting(format!("pod is starting: {}", text.trim())),
        };
    }
    let unscheduled = status
        .conditions
        .unwrap_or_default()
        .into_iter()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
    match unscheduled.and_then(|condition| condition.message) {
        Some(message) => State::Waiting(format!("pod isn't scheduled: {message}")),
        None => State::Waiting("pod is starting".into()),
    }
}

/// The latest warning about the Job or its pod, for those who may read events.
async fn last_warning(client: &Client, namespace: &str, job: &str, pod: Option<&str>) -> Option<String> {
    let events: Api<Event> = Api::namespaced(client.clone(), namespace);
    let params = ListParams::default().fields(&format!(
        "type=Warning,involvedObject.name={}",
        pod.unwrap_or(job)
    ));
    let events = events.list(&params).await.ok()?;
    let latest = events
        .items
        .into_iter()
        .max_by_key(|event| event.last_timestamp.clone())?;
    Some(
        [latest.reason, latest.message]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(": "),
    )
}

fn forbidden(error: &watcher::Error) -> bool {
    use watcher::Error::{InitialListFailed, NoResourceVersion, WatchError, WatchFailed, WatchStartFailed};
    match error {
        InitialListFailed(error) | WatchStartFailed(error) | WatchFailed(error) => {
            matches!(error, kube::Error::Api(status) if status.is_forbidden())
        }
        WatchError(status) => status.is_forbidden(),
        NoResourceVersion => false,
    }
}

fn message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(status: &Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "status": status})).unwrap()
    }

    fn waiting(reason: &str) -> Value {
        let state = json!({"waiting": {"reason": reason, "message": "why"}});
        json!({"phase": "Pending", "containerStatuses": [{
            "name": "call", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state,
        }]})
    }

    #[test]
    fn a_pod_that_ended_either_way_is_finished() {
        for phase in ["Succeeded", "Failed"] {
            assert_eq!(state(&pod(&json!({"phase": phase}))), State::Finished);
        }
    }

    #[test]
    fn a_pod_whose_container_runs_is_running() {
        let status = json!({"phase": "Running", "containerStatuses": [{
            "name": "call", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": {"running": {}},
        }]});
        assert_eq!(state(&pod(&status)), State::Running);
    }

    #[test]
    fn a_pod_that_cannot_start_ends_the_wait_with_the_reason() {
        for reason in [
            "ImagePullBackOff",
            "InvalidImageName",
            "ErrImageNeverPull",
            "CreateContainerConfigError",
        ] {
            let State::Stuck(text) = state(&pod(&waiting(reason))) else {
                panic!("{reason} is waited for")
            };
            assert!(text.contains(reason) && text.contains("why"), "{text}");
        }
    }

    #[test]
    fn a_pod_on_its_way_is_waited_for() {
        let unscheduled = json!({"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "message": "no nodes"},
        ]});
        let table = [
            (json!({}), "starting"),
            (waiting("ContainerCreating"), "ContainerCreating why"),
            (waiting("ErrImagePull"), "ErrImagePull why"),
            (unscheduled, "no nodes"),
        ];
        for (status, says) in table {
            let State::Waiting(text) = state(&pod(&status)) else {
                panic!("{status} isn't waited for")
            };
            assert!(text.contains(says), "{text}");
        }
    }
}
