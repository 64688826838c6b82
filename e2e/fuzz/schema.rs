//! A server's schema and a client's arguments: whatever they are, the check ends soon, and says the same each time. What is
//! before the first zero byte is the schema.
#![no_main]

use bulkhead_core::mcp::input_schema::InputSchema;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Some((schema, arguments)) = text.split_once('\0') else {
        return;
    };
    let Ok(schema) = InputSchema::compile(schema) else {
        return;
    };
    let violation = schema.violation(arguments);
    assert_eq!(violation, schema.violation(arguments));
    // Where everything is allowed, what is refused is no JSON that can be read.
    if schema.text().trim() == "{}" {
        assert_eq!(
            violation.is_none(),
            serde_json::from_str::<serde_json::Value>(arguments).is_ok()
        );
    }
});
