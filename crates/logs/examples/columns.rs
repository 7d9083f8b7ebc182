//! Prints the columns of a log: name as logged, signal, count, values.

fn main() {
    for path in std::env::args().skip(1) {
        for run in trimtab_logs::open(path.as_ref()).runs {
            println!("{} ({}) {:?}", run.name, run.format, run.notes);
            for (name, column) in run.trace.iter() {
                let stride = column.len().div_ceil(24).max(1);
                let values: Vec<String> =
                    column.values().iter().step_by(stride).map(|v| format!("{v:.4}")).collect();
                println!("  {name} <- {} [{}] {}", run.logged_name(name), column.len(), values.join(" "));
            }
            for (key, value) in run.facts.iter().filter(|(key, _)| !key.starts_with("declared.")) {
                println!("  {key} = {value}");
            }
        }
    }
}
