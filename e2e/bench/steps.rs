//! What the steps of a call take, each alone: by one thread, everything they need in the caches.

use std::{
    fs::File,
    hint::black_box,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use bulkhead_core::{
    audit::{Call, Completion, IntentRecord, OutcomeRecord},
    credential::Claims,
    json::Limits,
    mcp::{self, Inventory, Message, MirroredHeaders},
    policy::{Answer, Channel, CompiledAgent, CompiledPolicy, Context, Decision},
};
use bulkhead_proxy::{audit::AuditLog, minter::Minter};
use bytes::Bytes;

use crate::call::{AGENT, ANSWER, REQUEST, VERSION};

/// How long a step is repeated, and how often that is done.
const LENGTH: Duration = Duration::from_millis(200);
const ROUNDS: usize = 5;

/// Microseconds of each.
pub(crate) struct Steps {
    /// The message read, decided, its argument forced, read and decided again; its arguments' digest.
    pub(crate) decision: f64,
    /// The credential: its claims, and the signature.
    pub(crate) credential: f64,
    /// The record before and the record after, each written to a file.
    pub(crate) records: f64,
    /// The answer read, matched and passed.
    pub(crate) answer: f64,
}

/// Measures them under this policy. Records go to a file in the folder.
pub(crate) fn measure(policy: &str, list: &[u8], folder: &Path) -> Result<Steps> {
    let policy = CompiledPolicy::from_json(policy.as_bytes()).context("the bench's policy must compile")?;
    let agent = policy.agent(AGENT).context("the policy has the caller")?;
    let inventory = learn(&policy, agent, list)?;
    let context = Context::offline(&inventory, Limits::default());
    let request = Bytes::from(REQUEST.as_str());
    let message = read(&request)?;
    let decision = decide(&policy, agent, &message, context);
    let Ok(permitted) = &decision.outcome else {
        bail!("the call is refused: {:?}", decision.outcome)
    };
    let expected = permitted.expected().context("a call has an answer")?;
    let answer = Bytes::from(ANSWER.as_str());
    let passes = policy.answer(Some(agent), Channel::Answer(expected), &answer, context);
    ensure!(matches!(passes, Answer::Final(_)), "the answer is refused");

    let minter = Minter::new()?;
    let log = AuditLog::to(File::create(folder.join("records.out"))?);
    let call = Call {
        time: "2026-07-28T00:00:00.000000000Z",
        call: 1,
        spiffe_id: AGENT,
        certificate_serial: "5f0c4b1de5a8a0c1d2e3f4a5b6c7d8e9",
        token: "9d2b9a1c-0000-4000-8000-000000000001",
        pod: None,
        session: None,
        traceparent: None,
    };
    Ok(Steps {
        decision: micros(|| {
            let message = read(&request);
            message.is_ok_and(|message| {
                black_box(decide(&policy, agent, &message, context))
                    .outcome
                    .is_ok()
            })
        })?,
        credential: micros(|| {
            let mut id = String::new();
            let claims = |moment| Claims::of_message(&policy, agent, permitted, moment);
            !black_box(minter.authorization(claims, &mut id)).is_empty()
        })?,
        records: micros(|| {
            let intent = IntentRecord::decided(&policy, Some(agent), &call, &message, &decision);
            let outcome = OutcomeRecord {
                time: call.time,
                call: call.call,
                outcome: Completion::Completed,
                reason: None,
                reported: None,
                records_kept: None,
                records_removed: None,
            };
            log.write(&intent.line()).is_ok() && log.write(&outcome.line()).is_ok()
        })?,
        answer: micros(|| {
            let given = policy.answer(Some(agent), Channel::Answer(expected), &answer, context);
            matches!(black_box(given), Answer::Final(_))
        })?,
    })
}

/// The inventory of a sidecar that has seen the server's list.
fn learn(policy: &CompiledPolicy, agent: &CompiledAgent, list: &[u8]) -> Result<Inventory> {
    let nothing = Inventory::default();
    let context = Context::offline(&nothing, Limits::default());
    let request = Bytes::from_static(br#"{"jsonrpc":"2.0","id":7,"method":"tools/list"}"#);
    let decision = decide(policy, agent, &read(&request)?, context);
    let Ok(permitted) = decision.outcome else {
        bail!("the list is refused")
    };
    let expected = permitted.expected().context("a list has an answer")?;
    let list = Bytes::copy_from_slice(list);
    match policy.answer(Some(agent), Channel::Answer(expected), &list, context) {
        Answer::Final(answer) => nothing
            .learning(&answer.learned)
            .context("the list teaches something"),
        other => bail!("the list doesn't pass: {other:?}"),
    }
}

fn read(body: &Bytes) -> Result<Message<'_>> {
    mcp::read(body, Limits::default()).map_err(|refusal| anyhow::anyhow!("{refusal:?}"))
}

fn decide(
    policy: &CompiledPolicy,
    agent: &CompiledAgent,
    message: &Message<'_>,
    context: Context<'_>,
) -> Decision {
    let headers = MirroredHeaders::read([("mcp-protocol-version", VERSION.as_bytes())]);
    policy.decide(Some(agent), message, &headers, context)
}

/// The median of the rounds. `step` says whether it did what it is measured for.
fn micros(mut step: impl FnMut() -> bool) -> Result<f64> {
    let mut rounds = Vec::new();
    // The first fills the caches.
    for _ in 0..=ROUNDS {
        let begin = Instant::now();
        let mut number = 0_u32;
        while begin.elapsed() < LENGTH {
            for _ in 0..64 {
                ensure!(step(), "a step failed");
            }
            number += 64;
        }
        rounds.push(begin.elapsed().as_secs_f64() * 1e6 / f64::from(number));
    }
    rounds.remove(0);
    rounds.sort_by(f64::total_cmp);
    Ok(rounds[ROUNDS / 2])
}
