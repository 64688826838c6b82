//! Bodies that come slowly, or never to their end: each good message again, by hand over a connection of its own.

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
const BODY: Duration = Duration::from_secs(2);

/// What becomes of the last byte of a body.
#[derive(Clone, Copy)]
enum LastByte {
    Late,
    Never,
    Cut,
}

pub async fn try_slow(good: Good) -> Tried {
    let world = World::of(&good, |setup| setup.limits.body = BODY, server).await;
    let mut tried = Tried::default();
    let control = Case::good(&good);
    let refused = |why: EdgeRefusal| Case {
        fate: Fate::Refused(why.into()),
        ..Case::good(&good)
    };
    for (case, last) in [
        (&control, LastByte::Late),
        (&refused(EdgeRefusal::BodyTimeout), LastByte::Never),
        (&refused(EdgeRefusal::BodyIncomplete), LastByte::Cut),
        (&control, LastByte::Late),
    ] {
        *tried.counts.entry("slow body").or_default() += 1;
        let became: Became = became(&world, case, by_hand(&world, case, last)).await;
        tried.wrong.extend(became.differs(&world, &good, case));
    }
    tried
}

async fn by_hand(world: &World, case: &Case, last: LastByte) -> Reply {
    let (sidecar, leaf) = (&world.sidecar, world.leaf(case));
    let ca = sidecar.servers_ca.pem();
    let mut stream = connect_tls(sidecar.address, HOST, &ca, Some(leaf), None)
        .await
        .unwrap();
    let (body, token) = (world.body(case), sidecar.issuer.token(&leaf.uri));
    let mut head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: {HOST}\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\
         content-type: application/json\r\naccept: application/json, text/event-stream\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in &case.headers {
        let _ = write!(head, "{name}: {}\r\n", world.sealed(value));
    }
    let (most, rest) = body.split_at(body.len() - 1);
    stream.write_all((head + "\r\n").as_bytes()).await.unwrap();
    stream.write_all(most).await.unwrap();
    stream.flush().await.unwrap();
    match last {
        LastByte::Never => {}
        LastByte::Late => {
            sleep(Duration::from_millis(20)).await;
            stream.write_all(rest).await.unwrap();
            stream.flush().await.unwrap();
        }
        LastByte::Cut => stream.shutdown().await.unwrap(),
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
