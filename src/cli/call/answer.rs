//! How a call's answer is shown: its result on stdout, everything else on stderr, or all of it as one document.

use anyhow::Result;
use comfy_table::{Table, presets};
use serde_json::{Map, Value, json};

use super::audit::Found;
use crate::{
    agent_call::report::Report,
    output,
    paint::{self, printable},
};

/// A call that came to an end.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// What the client in the pod saw.
    pub report: Report,
    /// The call's trace.
    pub trace_id: String,
    /// What the sidecar recorded.
    pub audit: Found,
}

impl Answer {
    /// Everything, for programs.
    pub fn document(&self) -> Value {
        let mut document = match serde_json::to_value(&self.report) {
            Ok(Value::Object(report)) => report,
            _ => Map::new(),
        };
        document.insert("traceId".into(), json!(self.trace_id));
        match &self.audit {
            Found::NotAsked => {}
            Found::Records(records) => {
                document.insert("audit".into(), json!(records));
            }
            Found::Nothing(why) => {
                document.insert("audit".into(), Value::Null);
                document.insert("auditMissing".into(), json!(why));
            }
        }
        Value::Object(document)
    }

    /// Everything, for people.
    pub fn print(&self) -> Result<()> {
        match &self.report {
            Report::Result { result } => {
                output::text(&shown(result))?;
                if result["isError"] == json!(true) {
                    output::note(&paint::bad("the tool answered with an error"));
                }
            }
            other => output::note(&paint::bad(&other.complaint().unwrap_or_default())),
        }
        if let Some(text) = self.audit.text() {
            output::note(&text);
        }
        if self.audit != Found::NotAsked {
            output::note(&format!("trace {}", self.trace_id));
        }
        Ok(())
    }
}

/// A result as a person wants it: structured content as JSON, otherwise the text; other content as the JSON that it is.
fn shown(result: &Value) -> String {
    if let Some(tools) = result["tools"].as_array() {
        return listed(tools);
    }
    if let Some(structured) = result
        .get("structuredContent")
        .filter(|structured| !structured.is_null())
    {
        return format!("{structured:#}\n");
    }
    let Some(content) = result["content"].as_array() else {
        return format!("{result:#}\n");
    };
    content
        .iter()
        .map(|block| match (block["type"].as_str(), block["text"].as_str()) {
            (Some("text"), Some(text)) => format!("{}\n", printable(text)),
            _ => format!("{block:#}\n"),
        })
        .collect()
}

fn listed(tools: &[Value]) -> String {
    if tools.is_empty() {
        return "no tools exist for this agent\n".into();
    }
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_header(["TOOL", "ARGUMENTS", "DESCRIPTION"]);
    for tool in tools {
        let schema = &tool["inputSchema"];
        let required: Vec<_> = schema["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let arguments: Vec<_> = schema["properties"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, _)| {
                if required.contains(&name.as_str()) {
                    format!("{name}*")
                } else {
                    name.clone()
                }
            })
            .collect();
        let text = |key: &str| printable(tool[key].as_str().unwrap_or_default());
        let first_line = text("description").lines().next().unwrap_or_default().to_owned();
        table.add_row([text("name"), printable(&arguments.join(" ")), first_line]);
    }
    trimmed(&table)
}

/// A table without the spaces that fill its last column.
pub fn trimmed(table: &Table) -> String {
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structured_content_wins_over_its_copy_in_text() {
        let result = json!({"structuredContent": {"a": 1}, "content": [{"type": "text", "text": "copy"}]});
        assert_eq!(shown(&result), "{\n  \"a\": 1\n}\n");
    }

    #[test]
    fn text_is_shown_as_it_is_and_other_content_as_json() {
        let result =
            json!({"content": [{"type": "text", "text": "two\nlines"}, {"type": "image", "data": "AA=="}]});
        let text = shown(&result);
        assert!(
            text.starts_with("two\nlines\n") && text.contains("\"image\""),
            "{text}"
        );
    }

    #[test]
    fn a_server_cannot_repaint_the_terminal() {
        let result = json!({"content": [{"type": "text", "text": "\u{1b}[2Jgone\r"}]});
        assert_eq!(shown(&result), "\\u{1b}[2Jgone\\u{d}\n");
    }

    #[test]
    fn tools_are_a_table_that_marks_required_arguments() {
        let schema = json!({"properties": {"invoice_id": {}, "verbose": {}}, "required": ["invoice_id"]});
        let result =
            json!({"tools": [{"name": "get_invoice", "description": "One.\nMore.", "inputSchema": schema}]});
        let text = shown(&result);
        let words: Vec<_> = text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .collect();
        assert_eq!(words[0], ["TOOL", "ARGUMENTS", "DESCRIPTION"]);
        assert_eq!(words[1], ["get_invoice", "invoice_id*", "verbose", "One."]);
    }

    #[test]
    fn no_tools_is_said_in_words() {
        assert_eq!(shown(&json!({"tools": []})), "no tools exist for this agent\n");
    }

    #[test]
    fn a_document_holds_the_report_and_what_was_looked_for() {
        let report = Report::Refused {
            status: Some(404),
            code: None,
            message: "no".into(),
        };
        let answer = |audit| {
            Answer {
                report: report.clone(),
                trace_id: "t".into(),
                audit,
            }
            .document()
        };
        assert_eq!(
            answer(Found::NotAsked),
            json!({"outcome": "refused", "status": 404, "message": "no", "traceId": "t"})
        );
        assert_eq!(
            answer(Found::Nothing("not permitted".into()))["auditMissing"],
            "not permitted"
        );
    }
}
