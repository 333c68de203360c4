use std::process::ExitCode;

use anyhow::Result;
use convzoo::device;

use super::output::{print, print_json, table};

/// Arguments of `devices`.
#[derive(clap::Args)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Shows every device: compiled in or not, present or not.
pub fn run(args: &Args) -> Result<ExitCode> {
    let found = device::all();
    if args.json {
        print_json(&found)?;
        return Ok(ExitCode::SUCCESS);
    }
    let best = device::best().map(|name| name.to_string());
    let rows = found.iter().map(|found| {
        let yes = |yes| if yes { "yes" } else { "no" }.to_owned();
        let default = if best.as_ref() == Some(&found.name) { " (default)" } else { "" };
        vec![found.name.clone() + default, yes(found.compiled), yes(found.present), found.description.clone()]
    });
    print(&table(&["device", "compiled in", "present", "what it is"], &[], rows.collect()))?;
    if found.iter().any(|found| !found.compiled) {
        print("\nWhat is not compiled in is added by `cargo build --release --features NAME`; ws:// by `remote`.")?;
    }
    Ok(ExitCode::SUCCESS)
}
