//! What the configuration of a run declares.

use std::collections::BTreeMap;

use serde_json::Value;

/// Declared values by dotted key: `optim.learning_rate`, `ema.decay`, `stages.1.epochs`.
///
/// A key that was not declared is absent, which is different from declared as zero or `null`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    values: BTreeMap<String, Value>,
}

impl Facts {
    /// Nothing declared.
    pub fn new() -> Self {
        Self::default()
    }

    /// Flattens nested tables and arrays to dotted keys. Arrays and tables are also kept whole under
    /// their own key, except for the outermost one, which has none.
    pub fn from_value(value: Value) -> Self {
        let mut facts = Self::default();
        // A stack rather than recursion: the depth of the input is not ours to choose.
        let mut pending = vec![(String::new(), value)];
        while let Some((key, value)) = pending.pop() {
            let under = |part: &str| {
                if key.is_empty() { part.to_owned() } else { format!("{key}.{part}") }
            };
            match &value {
                Value::Object(table) => {
                    pending.extend(table.iter().map(|(part, v)| (under(part), v.clone())));
                }
                Value::Array(list) => {
                    pending.extend(list.iter().enumerate().map(|(at, v)| (under(&at.to_string()), v.clone())))
                }
                _ => {}
            }
            if !key.is_empty() {
                facts.values.insert(key, value);
            }
        }
        facts
    }

    /// Declares a value, replacing an earlier one.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<Value>) {
        self.values.insert(key.into(), value.into());
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    /// A number, whole or not.
    pub fn number(&self, key: &str) -> Option<f64> {
        self.get(key)?.as_f64()
    }

    /// A non-negative whole number.
    pub fn integer(&self, key: &str) -> Option<u64> {
        self.get(key)?.as_u64()
    }

    /// `true` or `false`.
    pub fn boolean(&self, key: &str) -> Option<bool> {
        self.get(key)?.as_bool()
    }

    /// A text.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_str()
    }

    /// An array of numbers; `None` when any element is something else.
    pub fn numbers(&self, key: &str) -> Option<Vec<f64>> {
        self.get(key)?.as_array()?.iter().map(Value::as_f64).collect()
    }

    /// All keys and values, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.values.iter().map(|(key, value)| (key.as_str(), value))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tables_are_flattened_to_dotted_keys() {
        let mut facts = Facts::from_value(json!({
            "optim": {"learning_rate": 1e-5, "groups": ["head", "backbone"]},
            "stages": [{"epochs": 3}, {"epochs": 4}],
            "amp": false,
            "betas": [0.9, 0.99],
        }));
        assert_eq!(facts.number("optim.learning_rate"), Some(1e-5));
        assert_eq!(facts.text("optim.groups.1"), Some("backbone"));
        assert_eq!(facts.integer("stages.1.epochs"), Some(4));
        assert_eq!(facts.number("stages.1.epochs"), Some(4.0));
        assert_eq!(facts.boolean("amp"), Some(false));
        assert_eq!(facts.numbers("betas"), Some(vec![0.9, 0.99]));
        assert_eq!(facts.numbers("optim.groups"), None);
        assert_eq!(facts.get("optim.warmup"), None);
        facts.set("optim.warmup", 10);
        assert_eq!(facts.integer("optim.warmup"), Some(10));
    }
}
