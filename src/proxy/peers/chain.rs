//! The agent's certificates in a request that is handed on: `Client-Cert` and `Client-Cert-Chain` of RFC 9440.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue};
use rustls::pki_types::CertificateDer;

const LEAF: HeaderName = HeaderName::from_static("client-cert");
const CHAIN: HeaderName = HeaderName::from_static("client-cert-chain");

/// Certificates of a chain that are handed on: a leaf, and as many CAs as anybody has.
const MOST: usize = 8;

/// Writes a chain. `None`: it has no leaf, or more certificates than anybody's.
pub(crate) fn write(chain: &[CertificateDer<'_>], headers: &mut HeaderMap) -> Option<()> {
    let (leaf, authorities) = chain.split_first()?;
    if authorities.len() >= MOST {
        return None;
    }
    headers.insert(LEAF, byte_sequence(leaf)?);
    for authority in authorities {
        headers.append(CHAIN, byte_sequence(authority)?);
    }
    Some(())
}

/// Reads a chain and takes it out. `None`: there is none, or it isn't written as [`write`] does.
pub(crate) fn take(headers: &mut HeaderMap) -> Option<Vec<CertificateDer<'static>>> {
    let written: Vec<HeaderValue> = [LEAF, CHAIN]
        .iter()
        .flat_map(|name| headers.get_all(name))
        .cloned()
        .collect();
    let leaves = headers.get_all(LEAF).iter().count();
    headers.remove(LEAF);
    headers.remove(CHAIN);
    if leaves != 1 || written.len() > MOST {
        return None;
    }
    written.iter().map(certificate).collect()
}

/// Takes out what only another replica may say.
pub(crate) fn remove(headers: &mut HeaderMap) {
    headers.remove(LEAF);
    headers.remove(CHAIN);
}

/// A byte sequence of RFC 9651, section 3.3.5.
fn byte_sequence(certificate: &CertificateDer<'_>) -> Option<HeaderValue> {
    HeaderValue::try_from(format!(":{}:", STANDARD.encode(certificate))).ok()
}

fn certificate(value: &HeaderValue) -> Option<CertificateDer<'static>> {
    let text = value.to_str().ok()?.strip_prefix(':')?.strip_suffix(':')?;
    STANDARD.decode(text).ok().map(CertificateDer::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_is_read_as_it_was_written() {
        let chain: Vec<_> = (0..3_u8)
            .map(|byte| CertificateDer::from(vec![byte; 5]))
            .collect();
        let mut headers = HeaderMap::new();
        write(&chain, &mut headers).unwrap();
        assert_eq!(headers["client-cert"], ":AAAAAAA=:");
        assert_eq!(take(&mut headers), Some(chain));
        assert!(headers.is_empty());
    }

    #[test]
    fn anything_else_is_no_chain_and_is_taken_out_too() {
        let long: Vec<_> = vec![("client-cert-chain", ":AAAA:"); MOST];
        let cases: &[&[(&'static str, &str)]] = &[
            &[],
            &[("client-cert-chain", ":AAAA:")],
            &[("client-cert", ":AAAA:"), ("client-cert", ":AAAA:")],
            &[("client-cert", "AAAA")],
            &[("client-cert", ":AAAA")],
            &[("client-cert", ":A:")],
            &[("client-cert", ":AAAA:, :AAAA:")],
            &[("client-cert", ":AAAA:"), ("client-cert-chain", "x")],
            &[&[("client-cert", ":AAAA:")], long.as_slice()].concat(),
        ];
        for case in cases {
            let mut headers = HeaderMap::new();
            for (name, value) in *case {
                headers.append(*name, HeaderValue::from_str(value).unwrap());
            }
            assert_eq!(take(&mut headers), None, "{case:?}");
            assert!(headers.is_empty());
        }
        let endless = vec![CertificateDer::from(vec![0]); MOST + 1];
        assert_eq!(write(&endless, &mut HeaderMap::new()), None);
        assert_eq!(write(&[], &mut HeaderMap::new()), None);
    }
}
