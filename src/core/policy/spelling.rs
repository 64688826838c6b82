//! Spellings of a URI: what a server may take for one and the same (RFC 3986 §6.2), and rules mustn't tell apart.
//!
//! Servers read URIs by all kinds of libraries, so none of this knows what a server does. It refuses: of two spellings that
//! some library takes for one, the plainer one is left.

use percent_encoding::percent_decode_str;

/// Whether what stands for a variable of a template at the end of `before` could be written plainer, or hides where a path
/// ends.
pub(super) fn is_disguised(before: &str, value: &str) -> bool {
    // Dropped at the ends, or everywhere (WHATWG URL). A fragment names a part of the same resource.
    value.chars().any(|c| c.is_control() || c == '#')
        || is_encoded_oddly(value)
        || has_empty_segment(before, value)
        || value.ends_with('?')
        || before.ends_with("://") && has_odd_authority(before, value)
}

/// Whether something is encoded that needn't be, or is read as a path's separator or the end of a text; or in lower-case
/// digits; or can't be decoded.
fn is_encoded_oddly(value: &str) -> bool {
    value.split('%').skip(1).any(|part| {
        let is_digit = |digit: u8| digit.is_ascii_digit() || (b'A'..=b'F').contains(&digit);
        let digits = part.get(..2).filter(|digits| digits.bytes().all(is_digit));
        let decoded = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        decoded.is_none_or(|byte| byte.is_ascii_alphanumeric() || b"-._~/\\%\0".contains(&byte))
    })
}

fn has_empty_segment(before: &str, value: &str) -> bool {
    let follows_one = before.ends_with('/') && !before.ends_with("://");
    value.contains("//") || follows_one && value.starts_with('/')
}

/// Whether an authority says what goes without saying (RFC 3986 §3.2, §6.2.3): nobody, no port, or the usual one; or in the
/// schemes of the Web is in capitals.
fn has_odd_authority(before: &str, value: &str) -> bool {
    let authority = value.split(['/', '?']).next().unwrap_or_default();
    let usual = match before {
        "http://" | "ws://" => ":80",
        "https://" | "wss://" => ":443",
        _ => ":",
    };
    let is_of_the_web = usual.len() > 1;
    authority.starts_with(['@', ':'])
        || authority.contains(":@")
        || authority.ends_with(':')
        || authority.ends_with(usual)
        || is_of_the_web && authority.bytes().any(|byte| byte.is_ascii_uppercase())
}

/// Whether a URI that a template covers, whose first variable comes after `beginning`, is another spelling of one that is
/// exactly `exact`.
pub(super) fn is_of(exact: &str, uri: &str, beginning: &str) -> bool {
    // Some servers look at the path alone. A template that begins with a query is written for one that doesn't.
    let has_query = exact.contains('?') || beginning.contains('?');
    let cut = |uri| if has_query { uri } else { until(uri, '?') };
    let plain = |uri| {
        let uri = cut(until(uri, '#'));
        percent_decode_str(uri.strip_suffix('/').unwrap_or(uri))
    };
    uri != exact && plain(exact).eq(plain(uri))
}

/// Whether a URI begins with another spelling of this.
pub(super) fn begins_with(beginning: &str, uri: &str) -> bool {
    let mut uri_decoded = percent_decode_str(uri);
    !uri.starts_with(beginning) && percent_decode_str(beginning).all(|byte| uri_decoded.next() == Some(byte))
}

fn until(text: &str, end: char) -> &str {
    text.split(end).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_be_written_plainer_is_found() {
        for (before, value) in [
            ("notes://", "%61ll"),
            ("notes://", "a%7Eb"),
            ("notes://", "caf%c3%a9"),
            ("notes://", "a%2Fb"),
            ("notes://", "a%252Fb"),
            ("notes://", "100%"),
            ("notes://", "%zz"),
            ("notes://", "%+7"),
            ("users://", "me:"),
            ("users://", "@me"),
            ("users://", ":@me"),
            ("users://", "me\u{1}"),
            ("file:///data/", "/secret"),
            ("file:///data/", "a//secret"),
            ("file:///data/", "secret#x"),
            ("file:///data/", "secret?"),
            ("https://", "crm.example:443/x"),
            ("https://", "CRM.example/x"),
            ("http://", "crm.example:80"),
        ] {
            assert!(is_disguised(before, value), "{before} {value}");
        }
        for (before, value) in [
            ("notes://", "7"),
            ("notes://", "a%20b"),
            ("notes://", "caf%C3%A9"),
            ("notes://", "\u{e9}"),
            ("users://", "me@corp"),
            ("users://", "Me"),
            ("file://", "/data/x"),
            ("file:///data/", "a/b.txt?version=2"),
            ("https://", "crm.example:8443/x"),
            ("https://crm.example/", "A:443"),
        ] {
            assert!(!is_disguised(before, value), "{before} {value}");
        }
    }

    #[test]
    fn another_spelling_is_known_and_another_uri_is_none() {
        for (exact, uri, expected) in [
            ("users://me@corp", "users://me%40corp", true),
            ("users://caf%C3%A9", "users://caf\u{e9}", true),
            ("docs://a", "docs://a/", true),
            ("docs://a", "docs://a?x", true),
            ("docs://a", "docs://a#x", true),
            ("docs://a?x", "docs://a?%78", true),
            ("docs://a", "docs://a", false),
            ("docs://a", "docs://b", false),
            ("docs://a?x", "docs://a?y", false),
            ("docs://a", "docs://a/b", false),
        ] {
            assert_eq!(is_of(exact, uri, "docs://"), expected, "{exact} {uri}");
        }
        assert!(!is_of("docs://a", "docs://a?page=1", "docs://a?page="));
        for (beginning, uri, expected) in [
            ("docs://caf%C3%A9/", "docs://caf\u{e9}/7", true),
            ("users://team@", "users://team%40x", true),
            ("users://team@", "users://team@x", false),
            ("users://team@", "users://tea", false),
            ("users://team@", "users://other", false),
        ] {
            assert_eq!(begins_with(beginning, uri), expected, "{beginning} {uri}");
        }
    }
}
