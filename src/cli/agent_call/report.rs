//! What a call in a pod reports to the command that started it: one marked line at the end of the pod's log.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::exit::Exit;

/// Begins the line. A server's text can't forge it: everything else that the program prints goes to stderr with another
/// beginning, and the last such line counts.
const MARK: &str = "bulkhead-call-report/v1 ";

/// Greatest report; container runtimes keep at least this much of a log.
const MAX_REPORT: usize = 8 << 20;

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Report {
    /// The server answered.
    Result {
        /// The MCP result as received: a `CallToolResult`, or an object with `tools`.
        result: Value,
    },
    /// The call was refused, by the sidecar or by the server.
    Refused {
        /// HTTP status, when it wasn't 200.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        status: Option<u16>,
        /// JSON-RPC error code, when there was one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<i64>,
        /// What the client was told.
        message: String,
    },
    /// There was no connection.
    CannotConnect {
        /// Why.
        message: String,
    },
    /// Something else went wrong.
    Failed {
        /// What.
        message: String,
    },
}

impl Report {
    /// The line for the log.
    pub fn to_line(&self) -> String {
        match serde_json::to_string(self) {
            Ok(json) if json.len() <= MAX_REPORT => format!("{MARK}{json}"),
            Ok(json) => Self::Failed {
                message: format!("the answer of {} bytes is too large to report", json.len()),
            }
            .to_line(),
            Err(error) => {
                format!(r#"{MARK}{{"outcome":"failed","message":"the answer can't be reported: {error}"}}"#)
            }
        }
    }

    /// The report at the end of a log, if there is one.
    pub fn from_log(log: &str) -> Option<Self> {
        let line = log.lines().rev().find_map(|line| line.strip_prefix(MARK))?;
        serde_json::from_str(line).ok()
    }

    /// The exit code for it.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Result { result } if result["isError"] == Value::Bool(true) => Exit::ToolError,
            Self::Result { .. } => Exit::Success,
            Self::Refused { .. } => Exit::Refused,
            Self::CannotConnect { .. } => Exit::CannotConnect,
            Self::Failed { .. } => Exit::Failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn failed(message: &str) -> Report {
        Report::Failed {
            message: message.into(),
        }
    }

    #[test]
    fn a_report_survives_the_log() {
        let reports = [
            Report::Result {
                result: json!({"content": [{"type": "text", "text": "line\nline"}]}),
            },
            Report::Refused {
                status: Some(403),
                code: Some(-32_602),
                message: "unknown tool".into(),
            },
            Report::Refused {
                status: None,
                code: None,
                message: "no".into(),
            },
            Report::CannotConnect {
                message: "refused".into(),
            },
            failed("boom"),
        ];
        for report in reports {
            let log = format!("connecting\n{}\n", report.to_line());
            assert_eq!(Report::from_log(&log), Some(report));
        }
    }

    #[test]
    fn the_last_report_of_a_log_counts() {
        let log = format!(
            "{}\n{}\nlater words\n",
            failed("first").to_line(),
            failed("second").to_line()
        );
        assert_eq!(Report::from_log(&log), Some(failed("second")));
    }

    #[test]
    fn a_log_without_a_whole_report_has_none() {
        let line = failed("cut off").to_line();
        for log in [
            "",
            "no report here",
            &line[..line.len() - 3],
            &format!("text before {line}"),
        ] {
            assert_eq!(Report::from_log(log), None, "{log}");
        }
    }

    #[test]
    fn an_answer_too_large_for_a_log_is_reported_as_such() {
        let report = Report::Result {
            result: Value::String("x".repeat(MAX_REPORT)),
        };
        assert_eq!(Report::from_log(&report.to_line()).unwrap().exit(), Exit::Failure);
    }

    #[test]
    fn each_outcome_has_its_exit_code() {
        let refused = Report::Refused {
            status: None,
            code: None,
            message: String::new(),
        };
        let table = [
            (
                Report::Result {
                    result: json!({"content": []}),
                },
                Exit::Success,
            ),
            (
                Report::Result {
                    result: json!({"content": [], "isError": false}),
                },
                Exit::Success,
            ),
            (
                Report::Result {
                    result: json!({"content": [], "isError": true}),
                },
                Exit::ToolError,
            ),
            (refused, Exit::Refused),
            (
                Report::CannotConnect {
                    message: String::new(),
                },
                Exit::CannotConnect,
            ),
            (failed(""), Exit::Failure),
        ];
        for (report, exit) in table {
            assert_eq!(report.exit(), exit, "{report:?}");
        }
    }
}
