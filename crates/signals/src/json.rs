//! JSON with the three numbers it lacks: `NaN`, `Infinity` and `-Infinity`, as Python writes them.

use std::borrow::Cow;

use serde_json::Value;

/// Appends a number: the shortest decimal that reads back to the same bits, or a bare token.
pub(crate) fn push_number(line: &mut String, value: f64) {
    use std::fmt::Write as _;
    if value.is_nan() {
        line.push_str("NaN");
    } else if value.is_infinite() {
        line.push_str(if value > 0.0 { "Infinity" } else { "-Infinity" });
    } else {
        // `Debug` of a finite float is the shortest round trip and valid JSON (`1e-7`, `0.1`, `-0.0`).
        // Writing to a string cannot fail.
        let _ = write!(line, "{value:?}");
    }
}

/// Appends a quoted, escaped string.
pub(crate) fn push_string(line: &mut String, text: &str) {
    line.push_str(&Value::from(text).to_string());
}

/// Parses one JSON value, in which a bare `NaN`, `Infinity` or `-Infinity` counts as the string of that
/// name; [`number`] turns it back.
///
/// # Errors
///
/// Where the text is not JSON even so.
pub fn parse(line: &[u8]) -> Result<Value, serde_json::Error> {
    serde_json::from_slice(line).or_else(|error| match quote_tokens(line) {
        Cow::Borrowed(_) => Err(error),
        Cow::Owned(quoted) => serde_json::from_slice(&quoted),
    })
}

/// The number in a JSON value: a number, one of the three tokens, or `null`, which writers without
/// `NaN` put in its place. `None` for anything else.
pub fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::Null => Some(f64::NAN),
        Value::String(token) => match token.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        _ => None,
    }
}

/// Puts quotes around the tokens that stand outside strings.
fn quote_tokens(line: &[u8]) -> Cow<'_, [u8]> {
    const TOKENS: [&[u8]; 3] = [b"NaN", b"Infinity", b"-Infinity"];
    let mut quoted: Vec<u8> = Vec::new();
    let (mut copied, mut at, mut in_string) = (0, 0, false);
    while at < line.len() {
        match line[at] {
            b'\\' if in_string => at += 1,
            b'"' => in_string = !in_string,
            b'N' | b'I' | b'-' if !in_string => {
                if let Some(token) = TOKENS.iter().find(|token| line[at..].starts_with(token)) {
                    quoted.extend_from_slice(&line[copied..at]);
                    quoted.push(b'"');
                    quoted.extend_from_slice(token);
                    quoted.push(b'"');
                    at += token.len();
                    copied = at;
                    continue;
                }
            }
            _ => {}
        }
        at += 1;
    }
    if copied == 0 {
        return Cow::Borrowed(line);
    }
    quoted.extend_from_slice(&line[copied..]);
    Cow::Owned(quoted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: Option<&str>) {
        let parsed = parse(line.as_bytes()).ok().map(|value| value.to_string());
        assert_eq!(parsed.as_deref(), expected, "{line}");
    }

    #[test]
    fn tokens_are_read_outside_strings_only() {
        check(r#"{"a":NaN}"#, Some(r#"{"a":"NaN"}"#));
        check(r#"{"a":[-Infinity, Infinity],"b":-1}"#, Some(r#"{"a":["-Infinity","Infinity"],"b":-1}"#));
        check(r#"{"NaN":"say \"NaN\" \\","b":NaN}"#, Some(r#"{"NaN":"say \"NaN\" \\","b":"NaN"}"#));
        check(r#"{"a":NaNa}"#, None);
        check(r#"{"a":N}"#, None);
        check(r#"{"a":"NaN"#, None);
        check(r#"{"a":"\"#, None);
        check("", None);
    }

    #[test]
    fn numbers_read_back_to_the_same_bits() {
        for value in [0.0, -0.0, 0.1, 1e-7, 1e300, 5e-324, f64::MAX, -1.0 / 3.0, 1e16, 123456789.0] {
            let mut line = String::new();
            push_number(&mut line, value);
            let back = parse(line.as_bytes()).ok().and_then(|value| number(&value));
            assert_eq!(back.map(f64::to_bits), Some(value.to_bits()), "{line}");
        }
    }
}
