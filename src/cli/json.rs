//! Values as JSON, of which the command writes one a line.

use std::fmt::Write as _;

use crate::spec::inspect::{Field, Line};

/// What a line of an inspection tells.
pub(super) fn of(line: &Line) -> String {
    let object = line.fields.iter().fold(Object::new(), |object, (name, value)| match value {
        Field::Text(text) => object.text(name, text),
        Field::Bytes(bytes) => object.bytes(name, bytes),
        Field::Number(number) => object.number(name, *number),
        Field::Flag(flag) => object.flag(name, *flag),
    });
    object.end()
}

/// An object of JSON, in the making.
#[derive(Debug)]
struct Object(String);

impl Object {
    fn new() -> Self {
        Self("{".to_owned())
    }

    fn key(&mut self, name: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        push_string(&mut self.0, name);
        self.0.push(':');
    }

    fn text(mut self, name: &str, value: &str) -> Self {
        self.key(name);
        push_string(&mut self.0, value);
        self
    }

    fn number(mut self, name: &str, value: u64) -> Self {
        self.key(name);
        self.0.push_str(&value.to_string());
        self
    }

    fn flag(mut self, name: &str, value: bool) -> Self {
        self.key(name);
        self.0.push_str(if value { "true" } else { "false" });
        self
    }

    /// A path or name. Where it is no UTF-8, which is all that JSON can hold, its bytes follow in
    /// hexadecimal, under the name with `_hex`.
    fn bytes(self, name: &str, value: &[u8]) -> Self {
        let text = String::from_utf8_lossy(value);
        let object = self.text(name, &text);
        if text.as_bytes() == value {
            return object;
        }
        let hex: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
        object.text(&format!("{name}_hex"), &hex)
    }

    fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

fn push_string(json: &mut String, text: &str) {
    json.push('"');
    for c in text.chars() {
        match c {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            c if c < ' ' || c == '\u{7f}' => {
                // To a string nothing fails.
                let _ = write!(json, "\\u{:04x}", u32::from(c));
            }
            c => json.push(c),
        }
    }
    json.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_escapes_what_would_end_a_string_or_a_line() {
        let object = Object::new()
            .text("a", "\"\\\n\u{1b}ä")
            .number("n", u64::MAX)
            .flag("f", true)
            .bytes("path", b"ok")
            .bytes("odd", b"\xff");
        assert_eq!(
            object.end(),
            "{\"a\":\"\\\"\\\\\\u000a\\u001bä\",\"n\":18446744073709551615,\"f\":true,\
             \"path\":\"ok\",\"odd\":\"\u{fffd}\",\"odd_hex\":\"ff\"}"
        );
        assert_eq!(Object::new().end(), "{}");
    }
}
