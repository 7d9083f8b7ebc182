//! The file of factors: what an ablation changes.

use std::path::{Path, PathBuf};

use toml_edit::{Array, Document, Item, TableLike, Value};
use trimtab_train::TrainError;
use trimtab_train::settings::{ConfigError, Problem, Source};

/// Names that variants have beside those of factors.
pub(super) const BASELINE: &str = "baseline";
pub(super) const ALL: &str = "all";
pub(super) const WITHOUT: &str = "without-";

/// The key by which the best weights of a run are chosen.
const METRIC: &str = "evaluate.metric";

/// Keys that the ablation itself sets, and what to use instead.
const RESERVED: &[(&str, &str)] = &[
    ("seed", "every variant is trained with several: give `seeds`, or --seeds"),
    (METRIC, "all variants are compared by one: give `metric`"),
];

/// One `key=value` of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// As written.
    pub text: String,
    /// Line in the file, from 1.
    pub line: usize,
}

impl Setting {
    /// Dotted key.
    pub fn key(&self) -> &str {
        key_of(&self.text)
    }

    fn value(&self) -> &str {
        self.text.split_once('=').map_or("", |(_, value)| value.trim())
    }
}

/// The key of a `key=value`.
pub(super) fn key_of(text: &str) -> &str {
    text.split_once('=').map_or(text, |(key, _)| key).trim()
}

/// A change whose effect is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Factor {
    /// Names its variant, and the directories of its runs.
    pub name: String,
    /// What it sets.
    pub set: Vec<Setting>,
    /// Line in the file, from 1.
    pub line: usize,
}

/// The file of factors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Factors {
    /// The file, for messages.
    pub path: PathBuf,
    /// Seeds that every variant is trained with, where given.
    pub seeds: Option<Vec<u64>>,
    /// The metric to compare by, where given: `evaluate.metric=` and it.
    pub metric: Option<Setting>,
    /// What the baseline sets.
    pub base: Vec<Setting>,
    /// The changes; at least one.
    pub factors: Vec<Factor>,
}

impl Factors {
    /// Reads a file.
    ///
    /// # Errors
    /// It can't be read, or anything [`Self::parse`] finds.
    pub fn read(path: &Path) -> Result<Self, TrainError> {
        let text = std::fs::read_to_string(path).map_err(|source| TrainError::Io {
            path: path.to_owned(),
            action: "cannot read",
            source,
        })?;
        Ok(Self::parse(path, &text)?)
    }

    /// As [`Self::read`], from text; `path` is for messages.
    ///
    /// # Errors
    /// Everything that is wrong, each with its line: not TOML, an unknown key, a name that can't be a folder's or occurs twice, factors
    /// that set one key to different values.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let mut parser = Parser { path, text, problems: Vec::new() };
        let document = Document::parse(text).map_err(|e| {
            parser.problem(
                parser.line(e.span()),
                "",
                format!("not valid TOML: {}", e.message().lines().next().unwrap_or_default()),
            );
            ConfigError(std::mem::take(&mut parser.problems))
        })?;
        let factors = parser.file(document.as_table());
        if parser.problems.is_empty() { Ok(factors) } else { Err(ConfigError(parser.problems)) }
    }
}

struct Parser<'a> {
    path: &'a Path,
    text: &'a str,
    problems: Vec<Problem>,
}

impl Parser<'_> {
    fn line(&self, span: Option<std::ops::Range<usize>>) -> usize {
        let offset = span.map_or(0, |s| s.start).min(self.text.len());
        self.text.as_bytes()[..offset].iter().filter(|b| **b == b'\n').count() + 1
    }

    fn problem(&mut self, line: usize, key: &str, message: impl Into<String>) {
        let source = Source::File(self.path.to_owned(), line);
        self.problems.push(Problem { source, key: key.to_owned(), message: message.into() });
    }

    fn wrong(&mut self, key: &str, item: &Item, accepted: &str) {
        let found = match item.as_value() {
            Some(value) => format!("{} ({})", value.clone().decorated("", ""), value.type_name()),
            None => item.type_name().to_owned(),
        };
        self.problem(self.line(item.span()), key, format!("found {found}; accepted {accepted}"));
    }

    fn file(&mut self, table: &dyn TableLike) -> Factors {
        let mut file = Factors {
            path: self.path.to_owned(),
            seeds: None,
            metric: None,
            base: Vec::new(),
            factors: Vec::new(),
        };
        for (key, item) in table.iter() {
            match key {
                "seeds" => file.seeds = self.seeds(item),
                "metric" => match item.as_str() {
                    Some(metric) => {
                        let text = format!("{METRIC}={metric}");
                        file.metric = Some(Setting { text, line: self.line(item.span()) });
                    }
                    None => self.wrong(key, item, "is a text in quotes, e.g. \"val/auc\""),
                },
                "base" => file.base = self.settings(key, item),
                "factor" => match item {
                    Item::ArrayOfTables(tables) => {
                        file.factors = tables.iter().map(|t| self.factor(t, self.line(t.span()))).collect();
                    }
                    _ => self.wrong(key, item, "are tables: [[factor]] with `name` and `set`"),
                },
                _ => self.problem(
                    self.line(item.span()),
                    key,
                    "unknown key; accepted are `seeds`, `metric`, `base` and tables [[factor]] with `name` and `set`",
                ),
            }
        }
        if file.factors.is_empty() && self.problems.is_empty() {
            self.problem(1, "factor", "there is none; give tables: [[factor]] with `name` and `set`");
        }
        self.check_names(&file.factors);
        self.check_conflicts(&file.factors);
        file
    }

    fn seeds(&mut self, item: &Item) -> Option<Vec<u64>> {
        let of = |value: &Value| u64::try_from(value.as_integer()?).ok();
        let seeds: Option<Vec<u64>> = item.as_array().and_then(|array| array.iter().map(of).collect());
        match seeds {
            Some(seeds) if !seeds.is_empty() => {
                if let Some(twice) =
                    seeds.iter().enumerate().find(|(i, seed)| seeds[..*i].contains(seed)).map(|(_, s)| s)
                {
                    self.problem(self.line(item.span()), "seeds", format!("{twice} stands there twice"));
                }
                Some(seeds)
            }
            _ => {
                self.wrong("seeds", item, "is an array of whole numbers from 0 on, e.g. [1, 2, 3]");
                None
            }
        }
    }

    fn settings(&mut self, key: &str, item: &Item) -> Vec<Setting> {
        const ACCEPTED: &str = "is an array of texts \"key=value\", e.g. [\"ema.decay=0.995\"]";
        let Some(array) = item.as_array().filter(|a: &&Array| a.iter().all(Value::is_str)) else {
            self.wrong(key, item, ACCEPTED);
            return Vec::new();
        };
        let mut settings: Vec<Setting> = Vec::new();
        for value in array {
            let line = self.line(value.span());
            let setting = Setting { text: value.as_str().unwrap_or_default().to_owned(), line };
            if !setting.text.contains('=') || setting.key().is_empty() {
                self.problem(line, key, format!("found \"{}\"; accepted {ACCEPTED}", setting.text));
                continue;
            }
            if let Some((_, instead)) = RESERVED.iter().find(|(reserved, _)| *reserved == setting.key()) {
                self.problem(line, setting.key(), format!("can't be set here: {instead}"));
            }
            if settings.iter().any(|s| s.key() == setting.key()) {
                self.problem(line, setting.key(), "is set twice here");
            }
            settings.push(setting);
        }
        settings
    }

    fn factor(&mut self, table: &toml_edit::Table, line: usize) -> Factor {
        let mut factor = Factor { name: String::new(), set: Vec::new(), line };
        for (key, item) in table.iter() {
            match key {
                "name" => match item.as_str() {
                    Some(name) => factor.name = name.to_owned(),
                    None => self.wrong("factor.name", item, "is a text in quotes"),
                },
                "set" => factor.set = self.settings("factor.set", item),
                _ => self.problem(
                    self.line(item.span()),
                    &format!("factor.{key}"),
                    "unknown key; accepted are `name` and `set`",
                ),
            }
        }
        for key in ["name", "set"].into_iter().filter(|key| !table.contains_key(key)) {
            self.problem(line, "factor", format!("`{key}` is missing"));
        }
        if factor.set.is_empty() && table.get("set").and_then(Item::as_array).is_some_and(Array::is_empty) {
            self.problem(line, "factor.set", "is empty: the factor changes nothing");
        }
        factor
    }

    fn check_names(&mut self, factors: &[Factor]) {
        for (i, Factor { name, line, .. }) in factors.iter().enumerate().filter(|(_, f)| !f.name.is_empty()) {
            let lower = name.to_lowercase();
            let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
            if !plain || name.starts_with('.') || name.len() > 100 {
                self.problem(
                    *line,
                    "factor.name",
                    format!("found \"{name}\"; accepted are letters, digits, `-`, `_` and `.`, at most 100: it names folders"),
                );
            } else if lower == BASELINE || lower == ALL || lower.starts_with(WITHOUT) {
                let message = format!(
                    "\"{name}\" is taken: variants are called `{BASELINE}`, `{ALL}` and `{WITHOUT}…`"
                );
                self.problem(*line, "factor.name", message);
            } else if let Some(other) = factors[..i].iter().find(|f| f.name.to_lowercase() == lower) {
                // Some file systems do not tell cases apart.
                let message = format!("\"{name}\" is the name of the factor of line {} too", other.line);
                self.problem(*line, "factor.name", message);
            }
        }
    }

    /// All factors together must mean something.
    fn check_conflicts(&mut self, factors: &[Factor]) {
        for (i, factor) in factors.iter().enumerate() {
            for setting in &factor.set {
                let earlier = factors[..i].iter().flat_map(|f| f.set.iter().map(move |s| (f, s)));
                let clash = earlier
                    .filter(|(_, s)| s.key() == setting.key())
                    .find(|(_, s)| !same_value(s.value(), setting.value()));
                if let Some((other, theirs)) = clash {
                    let message = format!(
                        "factor \"{}\" sets it to {}, factor \"{}\" (line {}) to {}: all together could not have both",
                        factor.name,
                        setting.value(),
                        other.name,
                        theirs.line,
                        theirs.value()
                    );
                    self.problem(setting.line, setting.key(), message);
                }
            }
        }
    }
}

/// Whether two values of a key are the same: 1e-3 and 0.001 are, and so are a word with quotes and without.
pub(super) fn same_value(a: &str, b: &str) -> bool {
    let read = |text: &str| text.trim().parse::<Value>().unwrap_or_else(|_| Value::from(text.trim()));
    let number = |v: &Value| v.as_float().or_else(|| v.as_integer().map(|i| i as f64));
    let (a, b) = (read(a), read(b));
    match (number(&a), number(&b)) {
        (Some(a), Some(b)) => a == b,
        _ => match (a.as_str(), b.as_str()) {
            (Some(a), Some(b)) => a == b,
            _ => a.decorated("", "").to_string() == b.decorated("", "").to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACTOR: &str = "[[factor]]\nname = \"ema\"\nset = [\"ema.decay=0.995\"]\n";

    #[track_caller]
    fn refused(text: &str, wanted: &[&str]) {
        let error = Factors::parse(Path::new("f.toml"), text).unwrap_err().to_string();
        for part in wanted {
            assert!(error.contains(part), "`{part}` is not in: {error}");
        }
    }

    #[test]
    fn a_file_is_read_with_the_lines_of_its_settings() {
        let text = format!("seeds = [3, 1]\nmetric = \"val/f1\"\nbase = [\"loss.kind=ldam\"]\n{FACTOR}");
        let file = Factors::parse(Path::new("f.toml"), &text).unwrap();
        assert_eq!(file.seeds, Some(vec![3, 1]));
        assert_eq!(file.metric, Some(Setting { text: "evaluate.metric=val/f1".to_owned(), line: 2 }));
        assert_eq!(file.base, [Setting { text: "loss.kind=ldam".to_owned(), line: 3 }]);
        let set = vec![Setting { text: "ema.decay=0.995".to_owned(), line: 6 }];
        assert_eq!(file.factors, [Factor { name: "ema".to_owned(), set, line: 4 }]);
    }

    #[test]
    fn what_is_not_understood_is_named_with_its_line() {
        refused("\nseed = 3\n", &["f.toml:2: `seed`: unknown key; accepted are `seeds`, `metric`"]);
        refused("[[factor]]\nname = \"a\"\nsets = []\n", &["f.toml:3: `factor.sets`", "`set` is missing"]);
        refused("seeds = 3\n", &["f.toml:1: `seeds`: found 3 (integer)", "[1, 2, 3]"]);
        refused("seeds = [1, -2]\n", &["`seeds`: found [1, -2] (array)"]);
        refused("seeds = [1, 2, 1]\n", &["`seeds`: 1 stands there twice"]);
        refused("seeds = []\n", &["`seeds`: found [] (array)"]);
        refused("metric = 3\n", &["`metric`: found 3 (integer); accepted is a text"]);
        refused("seeds = [1\n", &["f.toml:", "not valid TOML"]);
        refused("metric = \"val/f1\"\n", &["`factor`: there is none"]);
        refused("factor = 3\n", &["`factor`: found 3 (integer); accepted are tables"]);
        refused("[factor]\nname = \"a\"\n", &["`factor`: found table; accepted are tables"]);
        refused("[[factor]]\nname = \"a\"\nset = \"x=1\"\n", &["f.toml:3: `factor.set`: found \"x=1\""]);
        refused("[[factor]]\nname = \"a\"\nset = [\"x\"]\n", &["f.toml:3: `factor.set`: found \"x\""]);
        refused("[[factor]]\nname = \"a\"\nset = []\n", &["changes nothing"]);
        // Everything at once.
        refused("seeds = 3\nmetric = 3\n", &["`seeds`", "`metric`"]);
    }

    #[test]
    fn names_are_those_of_folders_and_differ() {
        let named = |name: &str| format!("[[factor]]\nname = \"{name}\"\nset = [\"a=1\"]\n");
        for name in ["../up", "a b", ".hidden", "a/b", "ü"] {
            refused(&named(name), &["f.toml:1: `factor.name`", name, "letters, digits"]);
        }
        for name in ["baseline", "All", "without-ema"] {
            refused(&named(name), &["is taken"]);
        }
        refused(&format!("{}{}", named("ema"), named("EMA")), &["f.toml:4:", "the factor of line 1"]);
    }

    #[test]
    fn keys_that_the_ablation_sets_are_refused() {
        refused(&format!("base = [\"seed=3\"]\n{FACTOR}"), &["f.toml:1: `seed`", "--seeds"]);
        let text = "[[factor]]\nname = \"a\"\nset = [\"evaluate.metric=val/f1\"]\n";
        refused(text, &["f.toml:3: `evaluate.metric`", "give `metric`"]);
    }

    #[test]
    fn two_factors_may_share_a_setting_but_not_disagree_on_it() {
        let both = |a: &str, b: &str| {
            format!(
                "[[factor]]\nname = \"a\"\nset = [\"x=0\", \"{a}\"]\n[[factor]]\nname = \"b\"\nset = [\"{b}\"]\n"
            )
        };
        let wanted = [
            "f.toml:6: `loss.scale`",
            "factor \"b\" sets it to 20, factor \"a\" (line 3) to 10",
            "could not have both",
        ];
        refused(&both("loss.scale=10", "loss.scale = 20"), &wanted);
        for (a, b) in [("y=1e-3", "y=0.001"), ("y=word", "y='word'"), ("y=[1,2]", "y=[1,2]"), ("y=1", "z=2")]
        {
            Factors::parse(Path::new("f.toml"), &both(a, b)).unwrap();
        }
        refused("[[factor]]\nname = \"a\"\nset = [\"x=1\", \"x=1\"]\n", &["`x`: is set twice here"]);
    }
}
