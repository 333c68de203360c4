use std::process::ExitCode;

use anyhow::Result;
use convzoo::train::{Recipe, recipe_names, recipe_text};
use serde::Serialize;

use super::names::RECIPES;
use super::output::{print, print_json, table};

/// Arguments of `recipes`.
#[derive(clap::Args)]
pub struct Args {
    /// The recipe to print [default: list them all]
    #[arg(value_parser = RECIPES, hide_possible_values = true)]
    name: Option<String>,
    /// Print JSON: with every field, also those that the file leaves at their defaults
    #[arg(long)]
    json: bool,
}

pub const EXAMPLES: &str = "Examples:
  convzoo recipes
  convzoo recipes transfer_head
  convzoo recipes resnet_cifar > own.toml; convzoo train resnet20_cifar --data cifar10 --recipe own.toml";

#[derive(Serialize)]
struct Document {
    name: &'static str,
    about: String,
    recipe: Recipe,
}

/// Lists the recipes that come with the program, or prints one.
pub fn run(args: &Args) -> Result<ExitCode> {
    if let Some(name) = &args.name {
        let recipe = Recipe::named(name)?;
        match args.json {
            true => print_json(&recipe)?,
            false => print(recipe_text(name).unwrap_or_default())?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    let documents = recipe_names().map(|name| {
        let about = about(recipe_text(name).unwrap_or_default());
        Ok(Document { name, about, recipe: Recipe::named(name)? })
    });
    let documents = documents.collect::<Result<Vec<_>>>()?;
    if args.json {
        print_json(&documents)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows = documents.iter().map(|Document { name, about, recipe }| {
        vec![(*name).to_owned(), recipe.epochs.to_string(), recipe.batch_size.to_string(), short(about)]
    });
    print(&table(&["recipe", "epochs", "batch", "for"], &[1, 2], rows.collect()))?;
    print("\n`convzoo recipes NAME` prints one; `train --recipe` takes its name, or a file made of it.")?;
    Ok(ExitCode::SUCCESS)
}

/// The beginning of that: to the first colon or stop and, where that is long, to the comma before.
fn short(about: &str) -> String {
    const LONG: usize = 60;
    let first = about.split(['.', ':']).next().unwrap_or_default();
    match first.char_indices().nth(LONG) {
        Some((end, _)) => first[..end].rsplit_once(',').map_or(&first[..end], |(before, _)| before).to_owned(),
        None => first.to_owned(),
    }
}

/// What a recipe's file says at its beginning, in its comments.
fn about(text: &str) -> String {
    let lines = text.lines().map_while(|line| line.strip_prefix('#'));
    lines.map(str::trim).collect::<Vec<_>>().join(" ")
}
