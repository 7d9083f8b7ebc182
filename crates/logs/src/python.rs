//! Python literals as frameworks print their configuration: `{'lr': 0.1, 'milestones': (30, 60)}`, `dict(type='SGD', lr=.01)`.

use serde_json::{Map, Value};

use crate::key_values::number;

/// Deepest nesting that is read.
const DEEPEST: usize = 40;

/// The value of a literal at the start of a text and the bytes it takes. Names other than those of constants become text, calls
/// become tables of their named arguments.
pub(crate) fn literal(text: &str) -> Option<(Value, usize)> {
    let mut reader = Reader { text, bytes: text.as_bytes(), at: 0 };
    let value = reader.value(DEEPEST)?;
    Some((value, reader.at))
}

struct Reader<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn byte(&self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    fn spaces(&mut self) {
        while self.byte().is_ascii_whitespace() {
            self.at += 1;
        }
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        self.spaces();
        let depth = depth.checked_sub(1)?;
        match self.byte() {
            b'{' => self.table(depth),
            open @ (b'[' | b'(') => {
                self.at += 1;
                self.list(if open == b'[' { b']' } else { b')' }, depth)
            }
            b'\'' | b'"' => self.string().map(Value::String),
            0 => None,
            _ => self.name_or_number(depth),
        }
    }

    fn table(&mut self, depth: usize) -> Option<Value> {
        self.at += 1;
        let mut table = Map::new();
        loop {
            self.spaces();
            match self.byte() {
                b'}' => {
                    self.at += 1;
                    return Some(Value::Object(table));
                }
                b',' => self.at += 1,
                0 => return None,
                _ => {
                    let key = match self.value(depth)? {
                        Value::String(key) => key,
                        key => key.to_string(),
                    };
                    self.spaces();
                    if self.byte() == b':' {
                        self.at += 1;
                        let value = self.value(depth)?;
                        table.insert(key, value);
                    }
                }
            }
        }
    }

    fn list(&mut self, close: u8, depth: usize) -> Option<Value> {
        let mut list = Vec::new();
        loop {
            self.spaces();
            match self.byte() {
                b if b == close => {
                    self.at += 1;
                    return Some(Value::Array(list));
                }
                b',' => self.at += 1,
                0 => return None,
                _ => list.push(self.value(depth)?),
            }
        }
    }

    fn string(&mut self) -> Option<String> {
        let quote = self.byte();
        let mut out = String::new();
        self.at += 1;
        let mut from = self.at;
        loop {
            match *self.bytes.get(self.at)? {
                b if b == quote => {
                    out += self.text.get(from..self.at)?;
                    self.at += 1;
                    return Some(out);
                }
                b'\\' => {
                    // Escapes do not matter in names; the character after the stroke stands for itself.
                    out += self.text.get(from..self.at)?;
                    from = self.at + 1;
                    self.at += 2;
                }
                _ => self.at += 1,
            }
        }
    }

    fn name_or_number(&mut self, depth: usize) -> Option<Value> {
        let from = self.at;
        while !matches!(
            self.byte(),
            0 | b',' | b'(' | b')' | b'[' | b']' | b'{' | b'}' | b':' | b'=' | b'\n' | b' '
        ) {
            self.at += 1;
        }
        if self.at == from {
            return None;
        }
        let word = self.text.get(from..self.at)?;
        if self.byte() == b'(' {
            self.at += 1;
            return self.call(depth);
        }
        if self.byte() == b'<' {
            return None;
        }
        Some(match word {
            "True" | "true" => Value::Bool(true),
            "False" | "false" => Value::Bool(false),
            "None" | "null" => Value::Null,
            word => numeral(word).unwrap_or_else(|| Value::String(word.to_owned())),
        })
    }

    /// The arguments of a call: named ones make a table, a single other one stands for the call.
    fn call(&mut self, depth: usize) -> Option<Value> {
        let (mut table, mut list) = (Map::new(), Vec::new());
        loop {
            self.spaces();
            match self.byte() {
                b')' => {
                    self.at += 1;
                    break;
                }
                b',' => self.at += 1,
                0 => return None,
                _ => {
                    let value = self.value(depth)?;
                    self.spaces();
                    match value {
                        Value::String(name) if self.byte() == b'=' => {
                            self.at += 1;
                            let value = self.value(depth)?;
                            table.insert(name, value);
                        }
                        value => list.push(value),
                    }
                }
            }
        }
        Some(match (table.is_empty(), list.len()) {
            (true, 1) => list.remove(0),
            (true, n) if n > 1 => Value::Array(list),
            _ => Value::Object(table),
        })
    }
}

/// Whole numbers stay whole.
fn numeral(word: &str) -> Option<Value> {
    if let Ok(whole) = word.parse::<i64>() {
        return Some(whole.into());
    }
    if !word.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.')) {
        return None;
    }
    number(word).filter(|value| value.is_finite()).map(Value::from)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn literals_are_read() {
        for (text, value) in [
            (
                "{'lr': 1e-2, 'n': 9, 'a': [1, 2.5], 'b': (None, True)}",
                json!({"lr": 0.01, "n": 9, "a": [1, 2.5], "b": [null, true]}),
            ),
            (
                "dict(type='SGD', lr=0.01, betas=(\n  0.9,\n 0.99,\n))",
                json!({"type": "SGD", "lr": 0.01, "betas": [0.9, 0.99]}),
            ),
            ("Namespace(a=-1, b='it\\'s')", json!({"a": -1, "b": "it's"})),
            ("np.float64(0.5) rest", json!(0.5)),
            ("cuda", json!("cuda")),
            ("{1: {}}", json!({"1": {}})),
        ] {
            assert_eq!(literal(text).map(|(value, _)| value), Some(value), "{text}");
        }
        for text in ["", "{'a': ", "[1, 2", "'open", "dict(", "=", ")"] {
            assert_eq!(literal(text), None, "{text}");
        }
        assert_eq!(literal(&"[".repeat(100_000)), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "([\\[\\](){}:,='\" a1\\\\.-]|é|dict\\(){0,80}") {
            literal(&text);
        }
    }
}
