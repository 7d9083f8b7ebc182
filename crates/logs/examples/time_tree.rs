//! Reads the runs of folders and prints how many and how long: `cargo run --release -p trimtab-logs --example time_tree -- FOLDER...`

use std::time::Instant;

fn main() {
    for folder in std::env::args().skip(1) {
        let start = Instant::now();
        let runs = trimtab_logs::open(folder.as_ref()).runs.len();
        println!("{runs} runs in {:.4} s", start.elapsed().as_secs_f64());
    }
}
