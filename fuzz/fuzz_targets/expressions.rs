#![no_main]

use avocet_schema::cel::{EVALUATION_BUDGET, Expression, Value};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(source) = std::str::from_utf8(bytes) else { return };
    let Ok(expression) = Expression::compile(source, &["self", "oldSelf"]) else { return };
    let object = serde_json::json!({"a": 1, "b": [1, 2, 3], "c": {"d": "text"}, "e": null, "f": 1.5});
    let variables = [("self", Value::from(&object)), ("oldSelf", Value::from(&object))];
    let _ = expression.evaluate(&variables, &mut { EVALUATION_BUDGET });
});
