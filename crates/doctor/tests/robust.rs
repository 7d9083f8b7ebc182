//! No run makes a rule panic, and what is said of it is sound.

use proptest::prelude::*;
use trimtab_doctor::report::{Style, to_json, to_markdown, to_text};
use trimtab_doctor::{Options, compare, diagnose};
use trimtab_signals::{Column, Run, keys, names};

fn value() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => -2.0..2.0f64,
        2 => Just(0.0),
        2 => Just(1.0),
        1 => Just(f64::NAN),
        1 => Just(f64::INFINITY),
        1 => Just(f64::NEG_INFINITY),
        1 => Just(f64::MAX),
        1 => Just(f64::MIN),
        1 => Just(f64::MIN_POSITIVE),
        1 => any::<f64>(),
    ]
}

fn column() -> impl Strategy<Value = Column> {
    let steps = prop_oneof![
        6 => (0u64..50, 1u64..200).prop_map(|(from, by)| (from, by)),
        1 => (Just(u64::MAX - 5000), 1u64..100),
    ];
    let values = prop_oneof![
        prop::collection::vec(value(), 0..40),
        (value(), 0usize..40).prop_map(|(v, n)| vec![v; n]),
        (-3.0..3.0f64, -0.2..0.2f64, 0usize..60)
            .prop_map(|(a, b, n)| (0..n).map(|i| a + b * i as f64).collect::<Vec<f64>>()),
    ];
    (steps, values).prop_map(|((from, by), values)| {
        let steps = (0..values.len() as u64).map(|i| from.saturating_add(i.saturating_mul(by))).collect();
        Column::new(steps, values)
    })
}

fn fact() -> impl Strategy<Value = serde_json::Value> {
    prop_oneof![
        value().prop_map(serde_json::Value::from),
        any::<i64>().prop_map(serde_json::Value::from),
        any::<bool>().prop_map(serde_json::Value::from),
        prop::collection::vec(value(), 0..4).prop_map(serde_json::Value::from),
        "[a-z]{0,8}".prop_map(serde_json::Value::from),
        Just(serde_json::Value::Null),
    ]
}

fn run() -> impl Strategy<Value = Run> {
    let group = prop_oneof![4 => Just(""), 1 => Just("/head"), 1 => Just("/backbone"), 1 => Just("/teacher"), 1 => Just("/a")];
    let columns = prop::collection::vec((0..names::ALL.len(), group, column()), 0..14);
    let group = prop_oneof![4 => Just(""), 1 => Just(".head"), 1 => Just(".backbone"), 1 => Just(".a")];
    let facts = prop::collection::vec((0..keys::ALL.len(), group, fact()), 0..14);
    (columns, facts, column()).prop_map(|(columns, facts, epochs)| {
        let mut run = Run { name: "run".to_owned(), format: "any".to_owned(), ..Run::default() };
        for (signal, group, column) in columns {
            run.trace.set(format!("{}{group}", names::ALL[signal].name), column);
        }
        for (key, group, value) in facts {
            run.facts.set(format!("{}{group}", keys::ALL[key].name), value);
        }
        run.trace.set_epochs(epochs);
        run
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn any_run_is_diagnosed(run in run(), other in run()) {
        let diagnosis = diagnose(&run, &Options::default());
        for finding in &diagnosis.findings {
            prop_assert!(!finding.message.is_empty() && !finding.message.contains('\n'));
            if let (Some(first), Some(last)) = (finding.first_step, finding.last_step) {
                prop_assert!(first <= last, "{}: {first} > {last}", finding.rule);
            }
        }
        let json = to_json(&run, &diagnosis).to_string();
        prop_assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok());
        let _ = to_text(&run, &diagnosis, Style { color: true, width: 40, verbose: true });
        let _ = to_markdown(&run, &diagnosis);
        let _ = serde_json::to_string(&compare::compare(&run, &other));
    }
}
