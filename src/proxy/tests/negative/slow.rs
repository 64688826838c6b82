//! Bodies that come slowly, never to their end, or are too large to come: each good message again, by hand over a connection of
//! its own.

use std::{fmt::Write, time::Duration};

use bulkhead_proxy::{
    refusal::EdgeRefusal,
    testing::{
        PATIENCE, Reply,
        client::connect_tls,
        sidecar::{HOST, PATH},
    },
};
use http::{HeaderMap, StatusCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{sleep, timeout},
};

use crate::{
    Became, Tried, became,
    families::{Case, Fate},
    good::Good,
    world::{World, server},
};

/// How long a body may take. Long enough for what isn't slow, on a machine that is.
const BODY: Duration = Duration::from_secs(4);

/// More than a body may have.
const TOO_LARGE: usize = 65 << 10;

/// How a body comes.
#[derive(Clone, Copy, PartialEq)]
enum Coming {
    LastByteLate,
    LastByteNever,
    Cut,
    /// As no more than its length, which is too large: whoever sends such a body may find the connection closed before all of
    /// it is written.
    Announced,
}

pub async fn try_slow(good: Good) -> Tried {
    let world = World::of(&good, |setup| setup.limits.body = BODY, server).await;
    let mut tried = Tried::default();
    let control = Case::good(&good);
    let refused = |why: EdgeRefusal| Case {
        fate: Fate::Refused(why.into()),
        ..Case::good(&good)
    };
    for (case, coming) in [
        (&control, Coming::LastByteLate),
        (&refused(EdgeRefusal::BodyTimeout), Coming::LastByteNever),
        (&refused(EdgeRefusal::BodyIncomplete), Coming::Cut),
        (&refused(EdgeRefusal::BodyTooLarge), Coming::Announced),
        (&control, Coming::LastByteLate),
    ] {
        *tried.counts.entry("body by hand").or_default() += 1;
        let became: Became = became(&world, case, by_hand(&world, case, coming)).await;
        tried.wrong.extend(became.differs(&world, &good, case));
    }
    tried
}

async fn by_hand(world: &World, case: &Case, coming: Coming) -> Reply {
    let (sidecar, leaf) = (&world.sidecar, world.leaf(case));
    let ca = sidecar.servers_ca.pem();
    let mut stream = connect_tls(sidecar.address, HOST, &ca, Some(leaf), None)
        .await
        .unwrap();
    let (body, token) = (world.body(case), sidecar.issuer.token(&leaf.uri));
    let mut head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: {HOST}\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\
         content-type: application/json\r\naccept: application/json, text/event-stream\r\ncontent-length: {}\r\n",
        if coming == Coming::Announced {
            TOO_LARGE
        } else {
            body.len()
        }
    );
    for (name, value) in &case.headers {
        let _ = write!(head, "{name}: {}\r\n", world.sealed(value));
    }
    let (most, rest) = body.split_at(body.len() - 1);
    stream.write_all((head + "\r\n").as_bytes()).await.unwrap();
    if coming != Coming::Announced {
        stream.write_all(most).await.unwrap();
    }
    stream.flush().await.unwrap();
    match coming {
        Coming::LastByteNever | Coming::Announced => {}
        Coming::LastByteLate => {
            sleep(Duration::from_millis(20)).await;
            stream.write_all(rest).await.unwrap();
            stream.flush().await.unwrap();
        }
        Coming::Cut => stream.shutdown().await.unwrap(),
    }
    let mut text = Vec::new();
    // However the connection ends: what counts is what was said on it.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut text)).await.unwrap();
    let text = String::from_utf8(text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_default();
    let status = head.split(' ').nth(1).unwrap_or("500");
    Reply {
        status: StatusCode::from_bytes(status.as_bytes()).unwrap(),
        headers: HeaderMap::new(),
        body: body.to_owned().into(),
    }
}
