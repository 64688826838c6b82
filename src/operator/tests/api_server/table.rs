//! Tables that are committed, and compared with what the API server says.

use std::{
    collections::BTreeSet,
    env, fs,
    io::{self, Write as _},
    path::Path,
};

/// Set: the committed tables are written instead of compared.
const REWRITE: &str = "BULKHEAD_REWRITE_TABLES";

/// Compares a table with the committed one.
pub fn compare(path: &Path, found: &str) {
    if env::var_os(REWRITE).is_some() {
        fs::write(path, found).unwrap();
        return;
    }
    let committed = fs::read_to_string(path).unwrap_or_default();
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    let (then, now) = (lines(&committed), lines(found));
    let gone = then.difference(&now).map(|line| format!("- {line}\n"));
    let come = now.difference(&then).map(|line| format!("+ {line}\n"));
    assert!(
        committed == found,
        "{} is not what the API server says:\n{}\nIf that is meant: {REWRITE}=1 cargo test -p bulkhead-operator \
         --test api_server fence, and review what changed.",
        path.display(),
        gone.chain(come).collect::<String>(),
    );
}

/// Compares the part of a document between two lines that are markers of this name.
pub fn compare_part(path: &Path, name: &str, found: &str) {
    let document = fs::read_to_string(path).unwrap();
    let [begin, end] = ["begin", "end"].map(|side| format!("<!-- {side} {name} -->\n"));
    let from = document.find(&begin).expect("its begin is marked") + begin.len();
    let to = document.find(&end).expect("its end is marked");
    compare(path, &format!("{}{found}{}", &document[..from], &document[to..]));
}

/// Shows a table also when the test passes, which the harness would otherwise keep to itself.
pub fn show(text: &str) {
    io::stderr().write_all(text.as_bytes()).unwrap();
}
