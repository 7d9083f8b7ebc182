//! Configuration files that Python wrote as YAML.

use serde_json::{Map, Value};
use serde_saphyr::{DuplicateKeyPolicy, NonFiniteFloatPolicy, Options};

use crate::builder::RunBuilder;
use crate::input::Input;

/// Bytes of a configuration that are read.
const LIMIT: u64 = 4 << 20;

/// Declares each entry of a YAML file under its own name. Tags (`!!python/tuple`) are passed over; of a broken file the entries
/// that can be read count, with a note.
pub(crate) fn declare(input: &Input, builder: &mut RunBuilder) {
    let Ok(text) = input.to_text(LIMIT) else { return };
    let (entries, broken) = entries(&text);
    for (name, value) in &entries {
        builder.declare(name, value);
    }
    if broken > 0 {
        builder.note(format!("{}: {broken} parts are not YAML and were passed over", input.name()));
    }
}

/// The entries of a YAML table, and how many parts of the text could not be read.
pub(crate) fn entries(text: &str) -> (Map<String, Value>, usize) {
    match parse(text) {
        Some(Value::Object(table)) => return (table, 0),
        Some(Value::Null) => return (Map::new(), 0),
        Some(_) | None => {}
    }
    // Entry by entry, so that one that cannot be read costs only itself.
    let (mut table, mut broken) = (Map::new(), 0);
    let mut part = String::new();
    let mut take = |part: &mut String| {
        match parse(part) {
            Some(Value::Object(read)) => table.extend(read),
            Some(Value::Null) => {}
            Some(_) | None => broken += 1,
        }
        part.clear();
    };
    for line in text.lines() {
        if line.starts_with(|c: char| !c.is_whitespace() && !"-#]}".contains(c)) && !part.is_empty() {
            take(&mut part);
        }
        part.push_str(line);
        part.push('\n');
    }
    take(&mut part);
    (table, broken)
}

fn parse(text: &str) -> Option<Value> {
    let mut options = Options::default();
    options.duplicate_keys = DuplicateKeyPolicy::LastWins;
    options.non_finite_float_policy = NonFiniteFloatPolicy::AsString;
    serde_saphyr::from_str_with_options(text, options).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tags_of_python_are_passed_over() {
        let text = "args: !!python/object:argparse.Namespace\n  lr: 0.1\nact: !!python/name:torch.nn.ReLU ''\n\
                    betas: !!python/tuple\n- 0.9\n- 0.99\nbest: .nan\nlr: 1\nlr: 2\n";
        let (table, broken) = entries(text);
        assert_eq!(broken, 0);
        let expected = json!({"args": {"lr": 0.1}, "act": "", "betas": [0.9, 0.99], "best": ".nan", "lr": 2});
        assert_eq!(Value::Object(table), expected);
    }

    #[test]
    fn of_a_broken_file_the_readable_entries_count() {
        let (table, broken) = entries("lr: 0.1\nbad: [1, {\nlayers:\n- 3\n- 4\nworse: a: b\nseed: 7\n");
        assert_eq!(Value::Object(table), json!({"lr": 0.1, "layers": [3, 4], "seed": 7}));
        assert_eq!(broken, 2);
        assert_eq!(entries(""), (Map::new(), 0));
        assert_eq!(entries("\u{0}\n").0, Map::new());
    }
}
