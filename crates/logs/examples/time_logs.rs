//! Reads logs and prints one JSON line a file, to be held against `benches/logs_python.py`:
//! `cargo run --release -p trimtab-logs --example time_logs -- FILE...`

use std::path::Path;
use std::time::Instant;

fn main() {
    for file in std::env::args().skip(1) {
        let path = Path::new(&file);
        let bytes = path.metadata().map_or(0, |metadata| metadata.len());
        let start = Instant::now();
        let opened = trimtab_logs::open(path);
        let seconds = start.elapsed().as_secs_f64();
        let columns = opened.runs.iter().flat_map(|run| run.trace.iter());
        let kept: usize = columns.map(|(_, column)| column.len()).sum();
        let peak = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let peak = peak.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("unknown").trim();
        let format = opened.runs.first().map_or("none", |run| run.format.as_str());
        println!(
            r#"{{"item":"{format}","bytes":{bytes},"kept":{kept},"seconds":{seconds:.4},"peak":"{peak}"}}"#
        );
    }
}
