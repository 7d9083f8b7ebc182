//! `trimtab predict`.

use trimtab_train::Request;

use crate::args::PredictArgs;
use crate::commands::open_run;
use crate::failure::{DONE, Failure};

pub fn run(args: &PredictArgs) -> Result<u8, Failure> {
    let loaded = open_run(&args.run)?.loaded;
    let request = Request {
        inputs: args.inputs.clone(),
        out: args.out.clone(),
        device: args.device.clone(),
        threshold: args.threshold,
        diameter: args.diameter,
        min_score: args.min_score,
    };
    loaded.recipe.predict(&args.run, &request, &mut |line| eprintln!("{line}"))?;
    Ok(DONE)
}
