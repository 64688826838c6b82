//! Strict reading of JSON text, keeping raw slices.
//!
//! A decision is only worth something when the server reads the same as we did. So this reader
//! refuses what parsers disagree on, at every depth, also in the parts that nobody looks at:
//! duplicate keys, lone surrogates, control characters, numbers out of range. `serde_json` checks
//! neither duplicates in a `Value` nor escapes in what it skips (`RawValue`, `IgnoredAny`), and
//! would need one pass per level; this is one pass, and values that are not looked into cost no
//! allocation. Tests hold it against `serde_json`: what passes here, passes there, and is equal.

use std::{borrow::Cow, collections::HashSet};

use crate::reason::Reason;

mod canonical;
pub mod number;
pub(crate) mod object;
pub mod text;
mod weight;

/// Objects with more keys than this are checked for duplicates through a hash set, so that a
/// hostile object doesn't cost quadratic time.
const LINEAR_KEYS: usize = 16;

/// Keys of an object, and of those that it is within, at most: they are remembered while it is read, and its members are
/// when somebody looks into it. Both take several times the memory of a short member's text.
const MAX_KEYS: usize = 64 * 1024;

/// Items of an array that somebody looks into, at most.
const MAX_ITEMS: usize = 256 * 1024;

/// What a message may be at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the body.
    pub bytes: usize,
    /// Nesting of objects and arrays.
    pub depth: usize,
}

impl Default for Limits {
    /// 4 MiB, 64 deep.
    fn default() -> Self {
        Self {
            bytes: 4 << 20,
            depth: 64,
        }
    }
}

type Read<T> = Result<T, Reason>;

/// The text of a body, when it is UTF-8 without a byte order mark and within the limit.
pub fn text(body: &[u8], limits: Limits) -> Read<&str> {
    if body.len() > limits.bytes {
        return Err(Reason::BodyTooLarge);
    }
    if body.starts_with(b"\xef\xbb\xbf") {
        return Err(Reason::ByteOrderMark);
    }
    std::str::from_utf8(body).map_err(|_| Reason::InvalidUtf8)
}

/// Reads one value, and nothing after it.
pub fn check(body: &[u8], limits: Limits) -> Read<()> {
    let mut reader = Reader::new(text(body, limits)?, limits.depth);
    reader.value()?;
    reader.end()
}

/// The kind of a raw value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `null`
    Null,
    /// `true` or `false`
    Bool,
    /// A number
    Number,
    /// A string
    String,
    /// An array
    Array,
    /// An object
    Object,
}

impl Kind {
    /// The kind of a raw value that was read before, without space around it.
    pub fn of(raw: &str) -> Self {
        match raw.as_bytes().first() {
            Some(b'{') => Self::Object,
            Some(b'[') => Self::Array,
            Some(b'"') => Self::String,
            Some(b't' | b'f') => Self::Bool,
            Some(b'n') => Self::Null,
            _ => Self::Number,
        }
    }
}

/// A cursor over JSON text.
pub struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    /// The text was read before: nothing in it is wrong, and values are only skipped.
    checked: bool,
    /// The keys of all open objects, innermost last; of an object with many the first ones.
    keys: Vec<Cow<'a, str>>,
    /// How many keys all open objects have.
    open: usize,
}

impl<'a> Reader<'a> {
    /// A reader of `text` that goes at most `depth` deep.
    pub fn new(text: &'a str, depth: usize) -> Self {
        Self {
            text,
            at: 0,
            depth,
            checked: false,
            keys: Vec::with_capacity(16),
            open: 0,
        }
    }

    /// A reader of a raw value that was read before.
    fn again(raw: &'a str) -> Self {
        Self {
            text: raw,
            at: 0,
            depth: usize::MAX,
            checked: true,
            keys: Vec::new(),
            open: 0,
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Read<()> {
        if self.peek() == Some(byte) {
            self.at += 1;
            Ok(())
        } else {
            Err(Reason::MalformedJson)
        }
    }

    /// The kind of the value at the cursor.
    pub fn kind(&mut self) -> Read<Kind> {
        self.skip_space();
        match self.peek() {
            Some(b'{' | b'[' | b'"' | b't' | b'f' | b'n' | b'-' | b'0'..=b'9') => {
                Ok(Kind::of(&self.text[self.at..]))
            }
            _ => Err(Reason::MalformedJson),
        }
    }

    /// Nothing but space may follow.
    pub fn end(&mut self) -> Read<()> {
        self.skip_space();
        if self.at == self.text.len() {
            Ok(())
        } else {
            Err(Reason::TrailingBytes)
        }
    }

    /// Reads the value at the cursor and gives its raw text, without space around it.
    pub fn value(&mut self) -> Read<&'a str> {
        let kind = self.kind()?;
        let start = self.at;
        match kind {
            Kind::Object | Kind::Array if self.checked => self.skip_nested()?,
            Kind::Object => self.members(|reader, _| reader.value().map(drop))?,
            Kind::Array => self.items(|reader| reader.value().map(drop))?,
            Kind::String => drop(self.scan_string()?),
            Kind::Number => self.scan_number()?,
            Kind::Bool if self.peek() == Some(b't') => self.scan_word("true")?,
            Kind::Bool => self.scan_word("false")?,
            Kind::Null => self.scan_word("null")?,
        }
        Ok(&self.text[start..self.at])
    }

    /// Reads the object at the cursor; `each` must read the value of every key that it is given.
    pub fn members(&mut self, mut each: impl FnMut(&mut Self, &Cow<'a, str>) -> Read<()>) -> Read<()> {
        self.skip_space();
        self.expect(b'{')?;
        self.descend()?;
        let (base, open) = (self.keys.len(), self.open);
        let mut many: Option<HashSet<Cow<'a, str>>> = None;
        self.skip_space();
        if self.peek() == Some(b'}') {
            self.at += 1;
        } else {
            loop {
                self.skip_space();
                let key = self.string()?;
                self.remember(base, key.clone(), &mut many)?;
                self.skip_space();
                self.expect(b':')?;
                each(self, &key)?;
                self.skip_space();
                match self.peek() {
                    Some(b',') => self.at += 1,
                    Some(b'}') => {
                        self.at += 1;
                        break;
                    }
                    _ => return Err(Reason::MalformedJson),
                }
            }
        }
        self.keys.truncate(base);
        self.open = open;
        self.depth += 1;
        Ok(())
    }

    /// Reads the array at the cursor; `each` must read every item.
    pub fn items(&mut self, mut each: impl FnMut(&mut Self) -> Read<()>) -> Read<()> {
        self.skip_space();
        self.expect(b'[')?;
        self.descend()?;
        self.skip_space();
        if self.peek() == Some(b']') {
            self.at += 1;
        } else {
            loop {
                each(self)?;
                self.skip_space();
                match self.peek() {
                    Some(b',') => self.at += 1,
                    Some(b']') => {
                        self.at += 1;
                        break;
                    }
                    _ => return Err(Reason::MalformedJson),
                }
            }
        }
        self.depth += 1;
        Ok(())
    }

    /// Reads the string at the cursor, escapes resolved.
    pub fn string(&mut self) -> Read<Cow<'a, str>> {
        self.skip_space();
        let start = self.at;
        if self.scan_string()? {
            text::unescape(&self.text[start..self.at]).map(Cow::Owned)
        } else {
            Ok(Cow::Borrowed(&self.text[start + 1..self.at - 1]))
        }
    }

    /// The raw text of what `read` reads.
    pub fn spanning(&mut self, read: impl FnOnce(&mut Self) -> Read<()>) -> Read<&'a str> {
        self.skip_space();
        let start = self.at;
        read(self)?;
        Ok(&self.text[start..self.at])
    }

    fn descend(&mut self) -> Read<()> {
        self.depth = self.depth.checked_sub(1).ok_or(Reason::TooDeep)?;
        Ok(())
    }

    /// Moves over an object or array that was read before: only its end has to be found.
    fn skip_nested(&mut self) -> Read<()> {
        let mut open = 0usize;
        loop {
            match self.peek().ok_or(Reason::MalformedJson)? {
                b'"' => {
                    self.scan_string()?;
                    continue;
                }
                b'{' | b'[' => open += 1,
                b'}' | b']' => open = open.saturating_sub(1),
                _ => {}
            }
            self.at += 1;
            if open == 0 {
                return Ok(());
            }
        }
    }

    fn remember(
        &mut self,
        base: usize,
        key: Cow<'a, str>,
        many: &mut Option<HashSet<Cow<'a, str>>>,
    ) -> Read<()> {
        if self.checked {
            return Ok(());
        }
        self.open += 1;
        if self.open > MAX_KEYS {
            return Err(Reason::TooManyMembers);
        }
        let known = &self.keys[base..];
        let new = match many {
            Some(set) => set.insert(key.clone()),
            None if known.len() >= LINEAR_KEYS => {
                let set = many.insert(known.iter().cloned().collect());
                set.insert(key.clone())
            }
            None => !known.contains(&key),
        };
        if !new {
            return Err(Reason::DuplicateKey);
        }
        if many.is_none() {
            self.keys.push(key);
        }
        Ok(())
    }

    /// Moves over a string and says whether it has escapes.
    fn scan_string(&mut self) -> Read<bool> {
        self.expect(b'"')?;
        let mut escaped = false;
        loop {
            self.at += text::plain_len(&self.text.as_bytes()[self.at..]);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(escaped);
                }
                Some(b'\\') => {
                    escaped = true;
                    self.at += text::escape_len(&self.text.as_bytes()[self.at..])?;
                }
                _ => return Err(Reason::MalformedJson),
            }
        }
    }

    fn scan_digits(&mut self) -> Read<()> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at > start {
            Ok(())
        } else {
            Err(Reason::MalformedJson)
        }
    }

    fn scan_number(&mut self) -> Read<()> {
        let start = self.at;
        let mut exponent = false;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.scan_digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.scan_digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            exponent = true;
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.scan_digits()?;
        }
        // Beyond the range of a double one parser says infinity, another zero, a third fails.
        let raw = &self.text[start..self.at];
        if (exponent || raw.len() > 300) && !raw.parse::<f64>().is_ok_and(f64::is_finite) {
            return Err(Reason::MalformedJson);
        }
        Ok(())
    }

    fn scan_word(&mut self, word: &str) -> Read<()> {
        if self.text[self.at..].starts_with(word) {
            self.at += word.len();
            Ok(())
        } else {
            Err(Reason::MalformedJson)
        }
    }
}

/// Members of an object for which there is room from the start.
const USUAL: usize = 8;

pub(crate) use canonical::canonical;
pub(crate) use weight::is_heavier_than;

/// The members of an object: decoded key, raw value.
pub(crate) type Members<'a> = Vec<(Cow<'a, str>, &'a str)>;

/// The members of a raw object, or `None` when it isn't one. For values that were read before:
/// the depth was limited then.
pub(crate) fn members(raw: &str) -> Option<Members<'_>> {
    let mut found = Vec::with_capacity(USUAL);
    let mut reader = Reader::again(raw);
    reader
        .members(|reader, key| {
            found.push((key.clone(), reader.value()?));
            Ok(())
        })
        .ok()?;
    Some(found)
}

/// The raw items of a raw array, or `None` when it isn't one or has more than anybody looks into.
pub(crate) fn items(raw: &str) -> Option<Vec<&str>> {
    items_at_most(raw, MAX_ITEMS)
}

/// The same, or `None` when there are more than `most`.
pub(crate) fn items_at_most(raw: &str, most: usize) -> Option<Vec<&str>> {
    let mut found = Vec::new();
    let mut reader = Reader::again(raw);
    reader
        .items(|reader| {
            if found.len() == most {
                return Err(Reason::BodyTooLarge);
            }
            found.push(reader.value()?);
            Ok(())
        })
        .ok()?;
    Some(found)
}

/// The decoded text of a raw string, or `None` when it isn't one.
pub(crate) fn string(raw: &str) -> Option<Cow<'_, str>> {
    if Kind::of(raw) == Kind::String {
        Reader::again(raw).string().ok()
    } else {
        None
    }
}

/// The raw value of a key.
pub(crate) fn get<'a>(members: &[(Cow<'_, str>, &'a str)], key: &str) -> Option<&'a str> {
    members.iter().find(|(name, _)| name == key).map(|(_, raw)| *raw)
}

/// Whether an object anywhere in a raw value has this key.
pub(crate) fn mentions_key(raw: &str, wanted: &str) -> bool {
    any_token(
        raw,
        &mut |token| matches!(token, Token::Member(key, _) if key == wanted),
    )
}

/// What a raw value is searched for.
pub(crate) enum Token<'t> {
    /// A key with its raw value.
    Member(&'t str, &'t str),
    /// A string value.
    Text(&'t str),
}

/// Whether some token of a raw value, at any depth, is what is wanted, or may be: of a list with more items than anybody looks
/// into.
pub(crate) fn any_token(raw: &str, wanted: &mut impl FnMut(Token<'_>) -> bool) -> bool {
    match Kind::of(raw) {
        // What can't be looked into may have it.
        Kind::Object => members(raw).is_none_or(|members| {
            members
                .iter()
                .any(|(key, raw)| wanted(Token::Member(key, raw)) || any_token(raw, wanted))
        }),
        Kind::Array => items(raw).is_none_or(|items| items.iter().any(|raw| any_token(raw, wanted))),
        Kind::String => string(raw).is_some_and(|text| wanted(Token::Text(&text))),
        Kind::Null | Kind::Bool | Kind::Number => false,
    }
}

#[cfg(test)]
#[path = "json/tests.rs"]
pub(crate) mod tests;
