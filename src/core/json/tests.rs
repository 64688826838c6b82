use proptest::prelude::*;

use super::*;

fn reason(body: &[u8]) -> Option<Reason> {
    check(
        body,
        Limits {
            bytes: 1 << 20,
            depth: 8,
        },
    )
    .err()
}

#[test]
fn what_would_take_many_times_its_length_in_memory_is_bounded() {
    let object = |keys: usize| {
        let members: Vec<_> = (0..keys).map(|key| format!("\"{key}\":1")).collect();
        format!("{{{}}}", members.join(","))
    };
    let nested = |inner: &str, keys: usize| format!("{{\"a\":{inner},{}", &object(keys)[1..]);
    let half = MAX_KEYS / 2;
    for (text, refused) in [
        (object(MAX_KEYS), None),
        (object(MAX_KEYS + 1), Some(Reason::TooManyMembers)),
        // Of objects that follow each other only one is open.
        (format!("[{},{}]", object(MAX_KEYS), object(MAX_KEYS)), None),
        (nested(&object(half), half), None),
        (
            format!(
                "{},\"b\":{}}}",
                object(half).trim_end_matches('}'),
                object(half + 1)
            ),
            Some(Reason::TooManyMembers),
        ),
    ] {
        let limits = Limits {
            bytes: 16 << 20,
            depth: 8,
        };
        assert_eq!(
            check(text.as_bytes(), limits).err(),
            refused,
            "{} bytes",
            text.len()
        );
    }

    let list = |items: usize| format!("[{}]", vec!["0"; items].join(","));
    assert_eq!(items(&list(MAX_ITEMS)).map(|items| items.len()), Some(MAX_ITEMS));
    assert_eq!(items(&list(MAX_ITEMS + 1)), None);
    // Nobody can say what is in it.
    assert!(!mentions_key(&list(MAX_ITEMS), "a"));
    assert!(mentions_key(&list(MAX_ITEMS + 1), "a"));

    let objects = |count: usize| format!("[{}]", vec!["{}"; count].join(","));
    for (text, heavy) in [
        (list(30_000), false),
        (list(40_000), true),
        (objects(1000), false),
        (objects(1600), true),
        (format!("[{}]", vec!["[0]"; 5000].join(",")), false),
        (format!("[{}]", vec!["[0]"; 6000].join(",")), true),
        (format!("[\"{}\"]", "{,[:".repeat(100_000)), false),
    ] {
        assert_eq!(is_heavier_than(&text, 1 << 20), heavy, "{} bytes", text.len());
    }
}

#[test]
fn hostile_texts_are_refused_at_any_depth() {
    let cases: &[(&[u8], Reason)] = &[
        (b"\xef\xbb\xbf{}", Reason::ByteOrderMark),
        (b"{\"a\":\"\xff\"}", Reason::InvalidUtf8),
        (b"{\"a\":[{\"b\":\"\xed\xa0\x80\"}]}", Reason::InvalidUtf8),
        (br#"{"a":1,"a":1}"#, Reason::DuplicateKey),
        (br#"{"x":[{"a":1,"b":2,"a":3}]}"#, Reason::DuplicateKey),
        (br#"{"a":1,"\u0061":2}"#, Reason::DuplicateKey),
        (br#"{"":1,"":2}"#, Reason::DuplicateKey),
        (br#"{"a":"\ud800"}"#, Reason::LoneSurrogate),
        (br#"{"a":["\udc00"]}"#, Reason::LoneSurrogate),
        (br#"{"a":"\ud800\u0041"}"#, Reason::LoneSurrogate),
        (br#"{"\ud800":1}"#, Reason::LoneSurrogate),
        (br#"{"a":"\ud800x"}"#, Reason::LoneSurrogate),
        (b"{} {}", Reason::TrailingBytes),
        (b"{}\0", Reason::TrailingBytes),
        (b"1 2", Reason::TrailingBytes),
        (b"[[[[[[[[[]]]]]]]]]", Reason::TooDeep),
        (
            br#"{"a":{"a":{"a":{"a":[{"a":{"a":{"a":{}}}}]}}}}"#,
            Reason::TooDeep,
        ),
        (b"", Reason::MalformedJson),
        (b"   ", Reason::MalformedJson),
        (b"{", Reason::MalformedJson),
        (b"{\"a\"}", Reason::MalformedJson),
        (b"{\"a\":}", Reason::MalformedJson),
        (b"{\"a\":1,}", Reason::MalformedJson),
        (b"[1,]", Reason::MalformedJson),
        (b"{a:1}", Reason::MalformedJson),
        (b"{'a':1}", Reason::MalformedJson),
        (b"[1 2]", Reason::MalformedJson),
        (b"\"a\nb\"", Reason::MalformedJson),
        (b"\"\\x41\"", Reason::MalformedJson),
        (b"\"\\u00g0\"", Reason::MalformedJson),
        (b"\"\\u00", Reason::MalformedJson),
        (b"\"abc", Reason::MalformedJson),
        (b"01x", Reason::TrailingBytes),
        (b"01", Reason::TrailingBytes),
        (b"-", Reason::MalformedJson),
        (b"1.", Reason::MalformedJson),
        (b".5", Reason::MalformedJson),
        (b"1e", Reason::MalformedJson),
        (b"+1", Reason::MalformedJson),
        (b"NaN", Reason::MalformedJson),
        (b"Infinity", Reason::MalformedJson),
        (b"1e999", Reason::MalformedJson),
        (b"tru", Reason::MalformedJson),
        (b"/* c */ 1", Reason::MalformedJson),
        (b"\xc2\xa01", Reason::MalformedJson),
    ];
    for (body, expected) in cases {
        assert_eq!(reason(body), Some(*expected), "{}", String::from_utf8_lossy(body));
    }
}

#[test]
fn plain_texts_are_read() {
    let cases: &[&[u8]] = &[
        b" {} ",
        b"[[[[[[[[]]]]]]]]",
        br#"{"a":{"a":1},"b":{"a":2}}"#,
        br#"{"a":"\ud83d\ude00 \" \\ \/ \b\f\n\r\t \u0041"}"#,
        b"[-0, 0.5, 1e2, 1E-2, 123456789012345678901234567890, true, false, null]",
        "\"é😀\u{2028}\u{7f}\"".as_bytes(),
        b"\r\n\t 1 \r\n",
    ];
    for body in cases {
        assert_eq!(reason(body), None, "{}", String::from_utf8_lossy(body));
    }
}

#[test]
fn duplicates_are_found_in_objects_of_any_size() {
    for size in [2, LINEAR_KEYS, LINEAR_KEYS + 1, 200] {
        for twice in [0, size / 2, size - 1] {
            let keys: Vec<_> = (0..size).map(|n| format!("\"k{n}\":{{\"k{n}\":1}}")).collect();
            let good = format!("{{{}}}", keys.join(","));
            assert_eq!(reason(good.as_bytes()), None);
            let bad = format!("{{{},\"k{twice}\":1}}", keys.join(","));
            assert_eq!(
                reason(bad.as_bytes()),
                Some(Reason::DuplicateKey),
                "{size} {twice}"
            );
        }
    }
}

#[test]
fn a_body_over_the_limit_is_refused_unread() {
    assert_eq!(
        check(b"\xff\xff\xff", Limits { bytes: 2, depth: 8 }),
        Err(Reason::BodyTooLarge)
    );
    assert_eq!(check(b"10", Limits { bytes: 2, depth: 8 }), Ok(()));
}

/// JSON values as text, with hostile spellings in between.
pub fn json_text() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|value| value.to_string()),
        any::<i64>().prop_map(|value| value.to_string()),
        any::<f64>()
            .prop_filter("finite", |value| value.is_finite())
            .prop_map(|value| format!("{value:e}")),
        any::<String>().prop_map(|value| text::quoted(&value)),
        "\"(\\\\u[0-9a-dD][0-9a-f]{3}|\\\\[nt\"]|[a-z ]){0,4}\"",
        "-?[0-9]{1,3}(\\.[0-9]{0,2})?([eE][+-]?[0-9]{0,4})?",
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(" ,\n"))),
            prop::collection::vec(("[ab]{0,2}", inner), 0..4).prop_map(|members| {
                let members: Vec<_> = members
                    .iter()
                    .map(|(key, value)| format!("\"{key}\" : {value}"))
                    .collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = reason(&body);
    }

    #[test]
    fn json_like_text_is_read_or_refused(body in "[\\[\\]{}:,\"\\\\ue0-9.\\-+a-c \n]{0,32}") {
        if reason(body.as_bytes()).is_none() {
            prop_assert!(serde_json::from_str::<serde_json::Value>(&body).is_ok(), "{}", body);
        }
    }

    #[test]
    fn what_is_read_here_is_read_alike_elsewhere(body in json_text()) {
        if reason(body.as_bytes()).is_none() {
            let theirs: serde_json::Value = serde_json::from_str(&body).unwrap();
            let mut reader = Reader::new(&body, 64);
            let raw = reader.value().unwrap();
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(raw).unwrap(), theirs.clone());
            if let (Some(ours), serde_json::Value::Object(map)) = (members(raw), &theirs) {
                prop_assert_eq!(ours.len(), map.len());
                for (key, value) in ours {
                    prop_assert_eq!(&serde_json::from_str::<serde_json::Value>(value).unwrap(), &map[key.as_ref()]);
                }
            }
        }
    }
}
