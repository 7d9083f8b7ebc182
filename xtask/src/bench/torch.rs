//! PyTorch's side: `benches/kernels_torch.py` in a process of its own.

use std::path::PathBuf;
use std::process::Command;

/// Where PyTorch is.
#[derive(Clone)]
pub struct Torch {
    /// A file to source that sets `PY`.
    pub environment: PathBuf,
    pub threads: usize,
}

impl Torch {
    /// The JSON lines it prints for `items`.
    pub fn run(&self, arguments: &[String]) -> Result<Vec<serde_json::Value>, Box<dyn std::error::Error>> {
        let script = crate::root().join("benches/kernels_torch.py");
        let out = Command::new("bash")
            .args(["-c", ". \"$0\" && exec \"$PY\" \"$@\""])
            .arg(&self.environment)
            .arg(script)
            .args(arguments)
            .args(["--threads", &self.threads.to_string()])
            .output()?;
        if !out.status.success() {
            let errors = String::from_utf8_lossy(&out.stderr);
            return Err(format!("PyTorch's side failed: {errors}").into());
        }
        let text = String::from_utf8(out.stdout)?;
        Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
    }
}
