//! Writing objects member by member: what is written with each call, the audit's records and the credential's claims.
//!
//! Texts are looked through eight bytes at a time. `serde_json` takes one after the other, which for a credential's claims
//! takes more than twice as long.

use std::fmt::Write as _;

use super::text::quote;

/// An object that is being written. Names are the program's own: nothing in them has to be escaped.
#[derive(Debug)]
pub(crate) struct Object {
    out: String,
}

impl Object {
    /// An object without members yet, and room for so many bytes.
    pub fn begin(room: usize) -> Self {
        let mut out = String::with_capacity(room);
        out.push('{');
        Self { out }
    }

    fn name(&mut self, name: &'static str) {
        if !self.out.ends_with('{') {
            self.out.push(',');
        }
        self.out.push('"');
        self.out.push_str(name);
        self.out.push_str("\":");
    }

    /// A text.
    pub fn text(&mut self, name: &'static str, value: &str) -> &mut Self {
        self.name(name);
        quote(&mut self.out, value);
        self
    }

    /// A text, if there is one.
    pub fn text_if(&mut self, name: &'static str, value: Option<&str>) -> &mut Self {
        if let Some(value) = value {
            self.text(name, value);
        }
        self
    }

    /// An integer.
    pub fn number(&mut self, name: &'static str, value: u64) -> &mut Self {
        self.name(name);
        // Writing to a String can't fail.
        let _ = write!(self.out, "{value}");
        self
    }

    /// An integer, if there is one.
    pub fn number_if(&mut self, name: &'static str, value: Option<u64>) -> &mut Self {
        if let Some(value) = value {
            self.number(name, value);
        }
        self
    }

    /// A list of texts, if there are any.
    pub fn texts(&mut self, name: &'static str, values: &[&str]) -> &mut Self {
        if let [first, others @ ..] = values {
            self.name(name);
            self.out.push('[');
            quote(&mut self.out, first);
            for other in others {
                self.out.push(',');
                quote(&mut self.out, other);
            }
            self.out.push(']');
        }
        self
    }

    /// An object, of which `write` gives the members.
    pub fn object(&mut self, name: &'static str, write: impl FnOnce(&mut Self)) -> &mut Self {
        self.name(name);
        self.out.push('{');
        write(self);
        self.out.push('}');
        self
    }

    /// The text of it.
    pub fn end(mut self) -> String {
        self.out.push('}');
        self.out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn members_stand_in_their_order_and_those_that_are_not_there_do_not() {
        let mut object = Object::begin(0);
        object
            .object("empty", |_| ())
            .text("text", "a\"b")
            .text_if("none", None)
            .text_if("some", Some(""))
            .number("most", u64::MAX)
            .number_if("no_number", None)
            .number_if("some_number", Some(1))
            .texts("no_texts", &[])
            .texts("texts", &["a", "\n"])
            .object("inner", |inner| {
                inner.number("least", 0).text("brace", "{");
            })
            .text("after", "{");
        assert_eq!(
            object.end(),
            r#"{"empty":{},"text":"a\"b","some":"","most":18446744073709551615,"some_number":1,"texts":["a","\n"],"inner":{"least":0,"brace":"{"},"after":"{"}"#
        );
        assert_eq!(Object::begin(2).end(), "{}");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_as_it_was(texts in proptest::collection::vec(any::<String>(), 1..4), number: u64) {
            let borrowed: Vec<&str> = texts.iter().map(String::as_str).collect();
            let mut object = Object::begin(8);
            object.text("text", &texts[0]).texts("texts", &borrowed).number("number", number);
            let read: Value = serde_json::from_str(&object.end()).unwrap();
            prop_assert_eq!(read, json!({"text": texts[0], "texts": texts, "number": number}));
        }
    }
}
