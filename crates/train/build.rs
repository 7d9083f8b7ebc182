//! Notes the commit the program is built from, for `run.json`; nothing where there is no git.

use std::process::Command;

fn main() {
    // Changes with every commit, also when HEAD keeps pointing at the same branch.
    println!("cargo:rerun-if-changed=../../.git/logs/HEAD");
    let out = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output();
    if let Ok(out) = out
        && out.status.success()
    {
        println!("cargo:rustc-env=TRIMTAB_GIT_COMMIT={}", String::from_utf8_lossy(&out.stdout).trim());
    }
}
