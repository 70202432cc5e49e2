//! Protobuf's text format, as `config.pbtxt` uses it, into JSON.

use serde_json::{Map, Number, Value};

use super::ConfigError;

const LARGEST: usize = 1 << 20;
const DEEPEST: usize = 32;

/// Fields of the configuration that may be given several times.
const REPEATED: [&str; 22] = [
    "agents",
    "batch_input",
    "batch_output",
    "control",
    "control_input",
    "cpu_execution_accelerator",
    "dim",
    "dims",
    "gpu_execution_accelerator",
    "gpus",
    "graph_spec",
    "initial_state",
    "input",
    "instance_group",
    "model_warmup",
    "op_library_filename",
    "output",
    "preferred_batch_size",
    "profile",
    "shape",
    "step",
    "versions",
];

/// Fields that are maps: repeated messages of `key` and `value`.
const MAPS: [&str; 7] = [
    "cc_model_filenames",
    "input_map",
    "inputs",
    "metric_tags",
    "output_map",
    "parameters",
    "priority_queue_policy",
];

/// Reads a whole file.
pub(super) fn read(text: &[u8]) -> Result<Value, ConfigError> {
    let fail = |problem: &str| ConfigError::Text { line: 1, problem: problem.into() };
    if text.len() > LARGEST {
        return Err(fail("the file is larger than 1 MiB"));
    }
    let text = std::str::from_utf8(text).map_err(|_| fail("the file is not UTF-8"))?;
    let mut reader = Reader { text, rest: text, depth: 0 };
    let message = reader.fields(None)?;
    Ok(Value::Object(message))
}

struct Reader<'a> {
    text: &'a str,
    rest: &'a str,
    depth: usize,
}

impl<'a> Reader<'a> {
    fn fail(&self, problem: impl Into<String>) -> ConfigError {
        let read = self.text.len() - self.rest.len();
        let before = self.text.get(..read).unwrap_or_default();
        ConfigError::Text { line: 1 + before.matches('\n').count(), problem: problem.into() }
    }

    /// The next character that is neither space nor in a comment.
    fn peek(&mut self) -> Option<char> {
        loop {
            self.rest = self.rest.trim_start();
            match self.rest.strip_prefix('#') {
                Some(comment) => self.rest = comment.split_once('\n').map_or("", |(_, rest)| rest),
                None => return self.rest.chars().next(),
            }
        }
    }

    fn take(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.rest = self.rest.get(wanted.len_utf8()..).unwrap_or_default();
        }
        found
    }

    /// The characters up to one that a name or number can't hold.
    fn word(&mut self) -> &'a str {
        let inside = |character: char| character.is_ascii_alphanumeric() || "_.+-".contains(character);
        let end = self.rest.find(|character| !inside(character)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at_checked(end).unwrap_or((self.rest, ""));
        self.rest = rest;
        word
    }

    /// A message up to its closing bracket, or the whole file.
    fn fields(&mut self, close: Option<char>) -> Result<Map<String, Value>, ConfigError> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(self.fail("it is nested too deep"));
        }
        let mut message = Map::new();
        loop {
            match (self.peek(), close) {
                (None, None) => break,
                (None, Some(close)) => return Err(self.fail(format!("`{close}` is missing at the end"))),
                (Some(_), Some(close)) if self.take(close) => break,
                (Some(_), _) => self.field(&mut message)?,
            }
        }
        self.depth -= 1;
        Ok(message)
    }

    fn field(&mut self, message: &mut Map<String, Value>) -> Result<(), ConfigError> {
        let name = self.word();
        if name.is_empty() {
            return Err(self.fail("the name of a field is missing"));
        }
        let colon = self.take(':');
        let mut values = Vec::new();
        if self.take('[') {
            while !self.take(']') {
                values.push(self.value(true)?);
                if !self.take(',') && self.peek() != Some(']') {
                    return Err(self.fail(format!("`,` or `]` is missing in the list `{name}`")));
                }
            }
        } else {
            values.push(self.value(colon)?);
        }
        // One separator may follow.
        let _ = self.take(',') || self.take(';');
        self.put(message, name, values)
    }

    fn put(
        &self,
        message: &mut Map<String, Value>,
        name: &str,
        values: Vec<Value>,
    ) -> Result<(), ConfigError> {
        if MAPS.contains(&name) {
            let entries = message.entry(name).or_insert_with(|| Value::Object(Map::new()));
            let Value::Object(entries) = entries else { return Ok(()) };
            for mut value in values {
                let key = match value.get("key") {
                    Some(Value::String(key)) => key.clone(),
                    Some(Value::Number(key)) => key.to_string(),
                    _ => return Err(self.fail(format!("an entry of `{name}` has no key"))),
                };
                entries.insert(key, value.get_mut("value").map(Value::take).unwrap_or_default());
            }
            return Ok(());
        }
        if REPEATED.contains(&name) {
            let list = message.entry(name).or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(list) = list {
                list.extend(values);
            }
            return Ok(());
        }
        let mut values = values.into_iter();
        match (values.next(), values.next(), message.contains_key(name)) {
            (Some(value), None, false) => message.insert(name.to_owned(), value),
            (None, ..) => None,
            _ => return Err(self.fail(format!("`{name}` is given twice"))),
        };
        Ok(())
    }

    fn value(&mut self, scalar: bool) -> Result<Value, ConfigError> {
        match self.peek() {
            Some('{') if self.take('{') => Ok(Value::Object(self.fields(Some('}'))?)),
            Some('<') if self.take('<') => Ok(Value::Object(self.fields(Some('>'))?)),
            Some('"' | '\'') if scalar => self.strings(),
            Some(_) if scalar => self.scalar(),
            _ => Err(self.fail("a value is missing")),
        }
    }

    fn scalar(&mut self) -> Result<Value, ConfigError> {
        let word = self.word();
        let number = match word.strip_prefix("0x").map(|digits| u64::from_str_radix(digits, 16)) {
            Some(hexadecimal) => hexadecimal.ok().map(Number::from),
            None => {
                word.parse::<u64>().map(Number::from).or_else(|_| word.parse::<i64>().map(Number::from)).ok()
            }
        };
        if let Some(number) = number {
            return Ok(Value::Number(number));
        }
        let starts_name = word.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
        match word {
            "true" | "True" | "t" => Ok(Value::Bool(true)),
            "false" | "False" | "f" => Ok(Value::Bool(false)),
            // An enumerated value, or `inf` and `nan`.
            name if starts_name => Ok(Value::String(name.to_owned())),
            other => {
                let float = other.trim_end_matches(['f', 'F']).parse::<f64>().ok();
                let number = float.and_then(Number::from_f64).map(Value::Number);
                number.ok_or_else(|| self.fail(format!("`{}` is no value", short(other))))
            }
        }
    }

    /// Strings that follow each other are one.
    fn strings(&mut self) -> Result<Value, ConfigError> {
        let mut bytes = Vec::new();
        while let Some(quote @ ('"' | '\'')) = self.peek() {
            self.take(quote);
            self.string(quote, &mut bytes)?;
        }
        String::from_utf8(bytes).map(Value::String).map_err(|_| self.fail("a string is not UTF-8"))
    }

    fn string(&mut self, quote: char, bytes: &mut Vec<u8>) -> Result<(), ConfigError> {
        let mut characters = self.rest.char_indices();
        while let Some((at, character)) = characters.next() {
            let after = self.rest.get(at + character.len_utf8()..).unwrap_or_default();
            match character {
                _ if character == quote => {
                    self.rest = after;
                    return Ok(());
                }
                '\n' => break,
                '\\' => {
                    let (byte, used) =
                        escape(after).ok_or_else(|| self.fail("a string holds an unknown escape"))?;
                    bytes.push(byte);
                    // All of an escape is ASCII.
                    for _ in 0..used {
                        characters.next();
                    }
                }
                _ => bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        Err(self.fail("a string does not end"))
    }
}

/// The byte that an escape stands for, and how many characters follow the backslash.
fn escape(after: &str) -> Option<(u8, usize)> {
    let first = after.bytes().next()?;
    let simple = |byte| Some((byte, 1));
    match first {
        b'n' => simple(b'\n'),
        b't' => simple(b'\t'),
        b'r' => simple(b'\r'),
        b'\\' | b'"' | b'\'' | b'?' => simple(first),
        b'x' | b'X' => {
            let digits = after.bytes().skip(1).take(2).take_while(u8::is_ascii_hexdigit).count();
            let byte = u8::from_str_radix(after.get(1..=digits)?, 16).ok()?;
            Some((byte, 1 + digits))
        }
        b'0'..=b'7' => {
            let digits = after.bytes().take(3).take_while(|byte| (b'0'..=b'7').contains(byte)).count();
            Some((u8::from_str_radix(after.get(..digits)?, 8).ok()?, digits))
        }
        _ => None,
    }
}

fn short(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn problem(text: &str) -> String {
        read(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn values_of_every_sort_are_read() {
        let text = r#"a: 1 b: -2, c: 1.5f; d: "x\n" 'y\x41\101' e: TYPE_FP32 # end
            f { g: true } h < i: 0x1f > dims: 1 dims: [2, 3] dims: []
            parameters [ { key: "k" value: { string_value: "v" } }, { key: "l" } ]"#;
        assert_eq!(
            read(text.as_bytes()).unwrap(),
            json!({
                "a": 1, "b": -2, "c": 1.5, "d": "x\nyAA", "e": "TYPE_FP32", "f": {"g": true}, "h": {"i": 31},
                "dims": [1, 2, 3], "parameters": {"k": {"string_value": "v"}, "l": null},
            })
        );
    }

    #[test]
    fn problems_are_named_with_their_line() {
        assert_eq!(problem("a: 1\nb {\n c: 2"), "line 3: `}` is missing at the end");
        assert_eq!(problem("a: 1\na: 2"), "line 2: `a` is given twice");
        assert_eq!(problem("a: \"x"), "line 1: a string does not end");
        assert_eq!(problem("a 1"), "line 1: a value is missing");
        assert_eq!(problem("dims: [1 2]"), "line 1: `,` or `]` is missing in the list `dims`");
        assert_eq!(problem("a: $"), "line 1: `` is no value");
        assert_eq!(problem(&"a{".repeat(100)), "line 1: it is nested too deep");
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic_or_hang(text in "[a-z0-9:{}<>\\[\\],;\"'#\\\\\n .+-]{0,80}") {
            let _ = read(text.as_bytes());
        }

        #[test]
        fn no_bytes_do(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes);
        }
    }
}
